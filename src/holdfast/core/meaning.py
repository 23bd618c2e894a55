"""What incidents and verdicts mean, in words: one line for lists and messages, and part by part for a page."""

from collections.abc import Sequence
from datetime import date

from msgspec.structs import replace

from holdfast.core.evidence import Grade, Verdict
from holdfast.core.records import ColumnCost, Explanation, Incident

NOTHING = 0.05
"""A column that costs this part of the costliest one, beyond what is usual, is not said in words."""
IF_WRONG = "a column costs this if its values are wrong, and nothing of it where the world moved"
MOST_NAMED = 5
"""So many of the things that pass are named."""


def many(count: int, noun: str) -> str:
    """A count with its noun, which takes an s where it is not one.

    >>> many(1, "row"), many(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage, which is 100 only where it is all of it.

    >>> percent(0.5), percent(1.0), percent(23_988 / 24_000)
    ('50.0%', '100.0%', '99.9%')
    """
    most = 1 - 10.0 ** -(digits + 2)
    return f"{share if share >= 1 else min(share, most):.{digits}%}"


def reason(verdict: Verdict) -> str:
    """Why a verdict is what it is, with what its check noted beside where that says more."""
    note = verdict.reading.note
    return verdict.why if not note or note in verdict.why else f"{verdict.why}; {note}"


def judged_by(incident: Incident) -> str:
    """Whether what was found keeps to the budget, to a limit that is stated, or to one that stood in for history."""
    if incident.calibrated:
        return "calibrated"
    return "not calibrated" if incident.first.stood_in else "stated limit"


def standing(incident: Incident) -> str:
    """Why it is open; of a closed one, why it was closed."""
    if incident.state != "closed":
        return reason(incident.last)
    return (
        f"closed: {next((move.why for move in incident.actions[::-1] if move.to == 'closed'), 'no reason on record')}"
    )


def summary(verdicts: Sequence[Verdict]) -> Verdict | None:
    """One verdict that stands for all of an evaluation, worst first: the worst; None without any.

    Where what was measured passes and is of several kinds, as rows, labels and columns are, no number of them is the
    worst one: it says how many pass, and which.
    """
    worst = next(iter(verdicts), None)
    passed = [verdict for verdict in verdicts if verdict.grade is Grade.PASS]
    kinds = {verdict.reading.name for verdict in passed}
    if worst is None or worst.grade is not Grade.PASS or len(kinds) == 1:
        return worst
    # What comes last in this order are watches, of which there are few words to say: when something ran last.
    about = sorted(passed, key=lambda verdict: verdict.reading.unit == "s")
    names = list(dict.fromkeys(verdict.reading.subject or verdict.reading.name for verdict in about))
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    why = f"all is as it should be: {', '.join([*names[:MOST_NAMED], *more])}"
    return replace(worst, why=why)


def headline(incident: Incident) -> str:
    """One line: since when, what it costs, where, what changed then; empty where nothing of it is known.

    What was changed comes last and is one thing only: the newest that is not an incident itself.
    """
    explained = incident.explained
    if explained is None:
        return ""
    said = [_since(explained), _costs(explained)]
    said += [f"worst where {explained.slices[0].subject}"] if explained.slices else []
    changed = [each for each in explained.changes if not each.what.startswith("inc-")]
    if changed and explained.began:
        said.append(f"near it: {changed[-1].what.partition(': ')[0]} ({changed[-1].at:%m-%d %H:%M})")
    return "; ".join(part for part in said if part)


def parts(explained: Explanation) -> list[tuple[str, list[str]]]:
    """Everything that is known, as headings with their lines; parts that are empty are left out."""
    named = [
        ("began", [_began(explained)]),
        ("costs", [_costs(explained), *_columns(explained), IF_WRONG if explained.ranking else ""]),
        ("worse where", [f"{each.subject}: {each.note}" for each in explained.slices]),
        ("changed then", [f"{each.at:%Y-%m-%d %H:%M} {each.what}" for each in explained.changes]),
        ("not known", explained.note.split("; ")),
    ]
    kept = [(name, [line for line in lines if line]) for name, lines in named]
    return [(name, lines) for name, lines in kept if lines]


def _since(explained: Explanation) -> str:
    return f"since {explained.began}{_between(explained)}" if explained.began else ""


def _began(explained: Explanation) -> str:
    if explained.began is None:
        return ""
    return f"{explained.began}{_between(explained)}, by the {explained.dated_by}"


def _between(explained: Explanation) -> str:
    low, high = explained.began_low, explained.began_high
    if low is None or high is None or low == high:
        return ""
    return f" ({_short(low, explained.began)} to {_short(high, explained.began)})"


def _short(day: date, beside: date | None) -> str:
    return f"{day:%m-%d}" if beside is not None and day.year == beside.year else f"{day}"


def _costs(explained: Explanation) -> str:
    if explained.cost is None:
        return ""
    if explained.basis == "labels":
        verb = "rose by" if explained.cost >= 0 else "fell by"
        said = f"{explained.loss} {verb} {abs(explained.cost):.3g}"
        part = next((each for each in explained.ranking if each.column == explained.column), None)
        of = f", an estimated {part.cost:.3g} by {part.column}" if part else ""
        return f"{said}{_interval(explained.cost_low, explained.cost_high)}{of}"
    interval = _interval(explained.cost_low, explained.cost_high)
    return f"{explained.column} costs an estimated {explained.cost:.3g} {explained.loss}{interval}"


def _columns(explained: Explanation) -> list[str]:
    """The priced columns but those next to nothing beside the first, which count for nothing but would be read."""
    excess = [each.cost - (each.usual or 0.0) for each in explained.ranking]
    return [
        _column(each, explained.loss)
        for each, above in zip(explained.ranking, excess, strict=True)
        if each.column == explained.column or above > NOTHING * max(excess)
    ]


def _column(each: ColumnCost, loss: str) -> str:
    usual = "" if each.usual is None else f", usually {each.usual:.3g}"
    return f"{each.column}: {each.cost:.3g} {loss}{_interval(each.low, each.high)}{usual}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"
