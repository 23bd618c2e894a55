"""The small words of the system file, read and written: durations, rates, release steps; and names for checks.

Each pair `read_x`, `write_x` is exact: reading what was written gives the same value. `read_x` raises ValueError
with a sentence that says what is expected.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

import msgspec

from holdfast.core.spans import ALL, AUTO, Span
from holdfast.core.spec import Gate, Monitor, Step
from holdfast.errors import did_you_mean

_MICROSECONDS = {"w": 604_800_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([wdhms])")
_RATE = re.compile(r"([0-9.eE+-]{1,30})\s+per\s+([a-z]+)")
_DAYS = {"week": 7, "month": 30, "year": 365}
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,30})?)%")
Checked = TypeVar("Checked", Gate, Monitor)
STAGES = ("shadow", "canary", "live")
_HALF_LIFE = "half-life"


def read_duration(text: str) -> timedelta:
    """``90s``, ``30m``, ``2h``, ``7d`` or ``2w`` as a duration; parts of a unit may be written as ``1.5h``.

    >>> read_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a duration such as 90s, 30m, 2h, 7d or 2w, got '{text}'")
    microseconds = Decimal(match[1]) * _MICROSECONDS[match[2]]
    try:
        return timedelta(microseconds=round(microseconds))
    except OverflowError:
        raise ValueError(f"'{text}' is longer than any calendar") from None


def write_duration(duration: timedelta) -> str:
    """A duration in the largest of days, hours, minutes and seconds that gives a whole number.

    >>> write_duration(timedelta(hours=36)), write_duration(timedelta(days=14)), write_duration(timedelta(0))
    ('36h', '14d', '0s')
    """
    microseconds = duration // timedelta(microseconds=1)
    for unit in "dhm" if microseconds else "":
        if microseconds % _MICROSECONDS[unit] == 0:
            return f"{microseconds // _MICROSECONDS[unit]}{unit}"
    whole, part = divmod(microseconds, _MICROSECONDS["s"])
    return f"{whole}.{part:06d}".rstrip("0") + "s" if part else f"{whole}s"


def read_rate(text: str) -> float:
    """``1 per month``, ``0.5 per week`` or ``3 per year`` as a number per 30 days.

    >>> read_rate("1 per month"), read_rate("7 per week")
    (1.0, 30.0)
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a rate such as 1 per month, got '{text}'")
    if match[2] not in _DAYS:
        raise ValueError(f"no rate 'per {match[2]}'{did_you_mean(match[2], tuple(_DAYS))}")
    try:
        count = float(match[1])
    except ValueError:
        raise ValueError(f"expected a rate such as 1 per month, got '{text}'") from None
    return count if match[2] == "month" else count * 30 / _DAYS[match[2]]


def write_rate(per_30_days: float) -> str:
    """A number per 30 days as the file writes it.

    >>> write_rate(1.0), write_rate(0.25)
    ('1 per month', '0.25 per month')
    """
    return f"{short(per_30_days)} per month"


def read_span(text: str) -> Span:
    """``all``, ``auto``, ``90d`` or ``half-life 90d`` as what is fitted.

    >>> read_span("half-life 4w").half_life
    datetime.timedelta(days=28)
    """
    words = text.split()
    if words in (["all"], ["auto"]):
        return ALL if words == ["all"] else AUTO
    if len(words) == 2 and words[0] == _HALF_LIFE:
        return Span(half_life=read_duration(words[1]))
    if not words or not words[0][:1].isdigit():
        near = did_you_mean(words[0], ("all", "auto", _HALF_LIFE)) if words else ""
        raise ValueError(f"expected all, auto, a duration such as 90d, or half-life 90d, got '{text}'{near}")
    return Span(recent=read_duration(text))


def write_span(span: Span) -> str:
    """What is fitted, as the file writes it.

    >>> write_span(Span(half_life=timedelta(days=90))), write_span(ALL)
    ('half-life 90d', 'all')
    """
    if span.auto:
        return "auto"
    if span.half_life is not None:
        return f"{_HALF_LIFE} {write_duration(span.half_life)}"
    return "all" if span.recent is None else write_duration(span.recent)


def read_step(text: str) -> Step:
    """``shadow 2d``, ``canary 10% 3d``, ``canary 10%`` or ``live`` as a step of a release."""
    stage, *rest = text.split() or [""]
    if stage not in STAGES:
        raise ValueError(f"no step '{stage}'{did_you_mean(stage, STAGES)}")
    if stage == "live":
        if rest:
            raise ValueError(f"'live' is the last step and takes nothing after it, got '{text}'")
        return Step(stage="live")
    share = _read_share(rest, text) if stage == "canary" else 0.0
    words = rest[1:] if stage == "canary" else rest
    if len(words) > 1:
        raise ValueError(f"expected '{'canary 10% 3d' if stage == 'canary' else 'shadow 2d'}', got '{text}'")
    least = read_duration(words[0]) if words else timedelta(0)
    return Step(stage="canary" if stage == "canary" else "shadow", share=share, least=least)


def _read_share(words: list[str], text: str) -> float:
    match = _SHARE.fullmatch(words[0]) if words else None
    if match is None:
        raise ValueError(f"a canary needs the share it answers, for example 'canary 10% 3d', got '{text}'")
    share = float(Decimal(match[1]) / 100)
    if not 0 < share < 1:
        raise ValueError(f"the share of a canary must be more than 0% and less than 100%, got {words[0]}")
    return share


def write_step(step: Step) -> str:
    """A step as the file writes it.

    >>> write_step(Step(stage="canary", share=0.1, least=timedelta(days=3)))
    'canary 10% 3d'
    """
    words: list[str] = [step.stage]
    if step.stage == "canary":
        percent = (Decimal(repr(step.share)) * 100).normalize()
        words.append(f"{percent:f}%")
    if step.least:
        words.append(write_duration(step.least))
    return " ".join(words)


def short(number: float) -> str:
    """A number without a needless fraction: ``3`` for 3.0; reading it gives the same float."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def fill_names(entries: Iterable[Checked]) -> tuple[Checked, ...]:
    """The same gates or monitors, each with a name: ``quality.log_loss.live`` where the file gives none.

    A name is made of the check, its options that are words, and the model that it is compared with; where that
    is taken already, ``.2``, ``.3`` and so on follow.
    """
    given = tuple(entries)
    taken = {entry.name for entry in given}
    named = []
    for entry in given:
        name = entry.name or _free(made_name(entry), taken)
        taken.add(name)
        named.append(entry if entry.name else msgspec.structs.replace(entry, name=name))
    return tuple(named)


def made_name(entry: Gate | Monitor) -> str:
    """The name of a gate or monitor that the file does not name, before ``.2`` tells it from another."""
    words = [value for value in entry.options.values() if isinstance(value, str) and _WORD.fullmatch(value)]
    return ".".join([entry.check, *words, *filter(None, [entry.limit.no_worse_than])])


def _free(name: str, taken: set[str]) -> str:
    candidates = (name if count == 1 else f"{name}.{count}" for count in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)
