"""How the budget of false alarms is split over the monitors of a file. In: a file, what monitors found. Out: shares."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from holdfast.core import kinds
from holdfast.core.evidence import Verdict
from holdfast.core.protocols import Check
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.flow.evaluation import looks_in
from holdfast.flow.monitors import windows_in
from holdfast.flow.reference import REFERENCE_DAYS
from holdfast.stats.conformal import Look, split_levels

DAY, MONTH = timedelta(days=1), timedelta(days=30)
STATED = "judged by the limit that the file states"
OWN = "judged by its own limits"
HEADS = ("  monitor", "looks a month", "level a look", "false alarms a month", "")
"""Heads of the cells of `table`."""
SHORT = "history is too short to calibrate it; a limit stands in that only a broken column reaches"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one monitor may spend of the budget."""

    monitor: str
    looks: float
    """Per month; of a stream each day is one."""
    level: float | None = None
    """Rate of false alarms of one look, in (0, 1]; None where it takes no share, or where that is not known."""
    why: str = ""
    """Why it takes no share, or why its level is not known; empty where it is."""

    @property
    def a_month(self) -> float:
        """Expected false alarms per month; 0 where none is known."""
        return 0.0 if self.level is None else self.looks * self.level


def planned(spec: SystemSpec, days: int = REFERENCE_DAYS) -> list[Share]:
    """The shares, were the reference of the live version so many days long and everything measured on each.

    As the monitors themselves split it (`monitors.Monitoring.levels`), who know what history really has.
    """
    checks = {monitor.name: _check(monitor) for monitor in spec.monitors}
    sharing = [monitor for monitor in spec.monitors if not _takes_none(monitor, checks[monitor.name])]
    looks: list[Look] = []
    second: dict[str, int] = {}
    for monitor in sharing:
        is_stream = checks[monitor.name].evidence == "stream"
        windows = None if is_stream else windows_in(monitor, days)
        looks.append(Look(_looks(monitor, is_stream=is_stream), windows))
    for monitor in sharing:
        if checks[monitor.name].evidence == "stream":
            second[monitor.name] = len(looks)
            looks.append(Look(MONTH / DAY, looks_in(days), is_second=True))
    levels = split_levels(spec.false_alarms, looks)
    found = {}
    for k, monitor in enumerate(sharing):
        level = levels[k] + (levels[second[monitor.name]] if monitor.name in second else 0.0)
        why = "" if level else SHORT
        found[monitor.name] = Share(monitor=monitor.name, looks=looks[k].evaluations, level=level or None, why=why)
    return [found.get(monitor.name) or _none(monitor, checks[monitor.name]) for monitor in spec.monitors]


def level_spent(verdicts: Sequence[Verdict]) -> float | None:
    """The level that one look spent: what is calibrated in it is judged jointly, on one; None where nothing is."""
    return next((verdict.level for verdict in verdicts if verdict.calibrated and verdict.level), None)


def spent(monitor: Monitor, last: Verdict | None, level: float | None = None) -> Share:
    """What a monitor spent at its last look: the level that it spent, where that is known, else by the verdict that
    stands for all of the look, which is its worst and need not be a calibrated one."""
    check = _check(monitor)
    if _takes_none(monitor, check):
        return _none(monitor, check)
    looks = _looks(monitor, is_stream=check.evidence == "stream")
    if last is None:
        return Share(monitor=monitor.name, looks=looks, why="not run yet")
    level = level or level_spent([last])
    if level is not None:
        return Share(monitor=monitor.name, looks=looks, level=level)
    _, marked, short = last.why.rpartition("(not calibrated: ")
    if marked or not last.calibrated:
        return Share(monitor=monitor.name, looks=looks, why=short.rstrip(")") if marked else SHORT)
    return Share(monitor=monitor.name, looks=looks, why="nothing could be judged at its last look")


def table(shares: Sequence[Share]) -> list[tuple[str, str, str, str, str]]:
    """The shares as cells: monitor, looks a month, level of a look, false alarms a month, why none."""
    return [
        (
            f"  {share.monitor}",
            f"{share.looks:.3g}",
            "-" if share.level is None else f"{share.level:.2g}",
            "-" if share.level is None else f"{share.a_month:.2g}",
            share.why,
        )
        for share in shares
    ]


def alarms(budget: float) -> str:
    """A budget in words.

    >>> alarms(1.0), alarms(0.5)
    ('1 false alarm', '0.5 false alarms')
    """
    return f"{budget:g} false alarm{'' if budget == 1 else 's'}"


def _check(monitor: Monitor) -> Check:
    check: Check = kinds.load("checks", monitor.check)(**monitor.options)
    return check


def _looks(monitor: Monitor, *, is_stream: bool) -> float:
    return MONTH / (DAY if is_stream else monitor.every)


def _takes_none(monitor: Monitor, check: Check) -> bool:
    return check.evidence == "stated" or monitor.limit.is_stated


def _none(monitor: Monitor, check: Check) -> Share:
    looks = _looks(monitor, is_stream=False)
    level = getattr(check, "level", None)
    if monitor.limit.is_stated:
        why = STATED
    elif isinstance(level, float):
        why = f"judged by its own level of {level:g} a look, {looks * level:.2g} a month beside the budget"
    else:
        why = OWN
    return Share(monitor=monitor.name, looks=looks, why=why)
