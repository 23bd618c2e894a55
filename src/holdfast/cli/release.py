"""``holdfast release plan``: how long the next release will take, before it begins."""

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many, percent
from holdfast.core.spec import Decide
from holdfast.core.specrules import check_decide
from holdfast.core.specwords import read_duration
from holdfast.flow.goalplans import GoalForecast, GoalOutlook, ShareOutlook
from holdfast.flow.planning import Outlook, ReleaseForecast, Spread
from holdfast.lookups import only_system
from holdfast.planning import plan_next_release

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Releases that have not begun yet.")

Margin = Annotated[float | None, typer.Option("--margin", help="Instead of the file's decide.margin.")]
Within = Annotated[str, typer.Option("--within", metavar="28d", help="Instead of the file's decide.within.")]


OUTLOOK = (
    "a candidate that is",
    "1 in 10 within",
    "half within",
    "9 in 10 within",
    "promoted",
    "refused",
    "expires",
)
FEW = 30
"""Fewer rows with a rarer label than this are little to plan by."""
MOST = 0.5
"""Where no more of equally good candidates than this go live in time, the plan says what would change that."""


@app.callback()
def release() -> None:
    """The commands below `release`."""


@app.command()
def plan(
    state: StateDirectory = STATE,
    system: SystemName = "",
    margin: Margin = None,
    within: Within = "",
    as_json: AsJson = False,
) -> None:
    """Say how long a release will take to be decided, and which margins can be decided in time.

    Past days are replayed through the release test, so what it says holds where the days to come are like them.
    """
    _must_be_a_margin(margin)
    deadline = _duration(within)
    with opened(state) as here, here.catalog.read() as tx:
        found = plan_next_release(
            here,
            tx,
            only_system(tx, system),
            SystemClock().now(),
            margin=margin,
            within=deadline,
        )
    if as_json:
        say_json(found)
    elif isinstance(found, GoalForecast):
        _show_goal(found)
    else:
        _show(found)


def _must_be_a_margin(margin: float | None) -> None:
    """Raises BadParameter, in the words of the file's rule, for one that no file may state."""
    for setting, why in () if margin is None else check_decide(Decide(loss="", margin=margin)):
        if setting == "margin":
            raise typer.BadParameter(why, param_hint="'--margin'")


def _duration(text: str) -> timedelta | None:
    """The option's duration; None where it is not given. Raises BadParameter, which ends with exit code 2."""
    try:
        return read_duration(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{error}; for example --within 28d", param_hint="'--within'") from None


def _show(found: ReleaseForecast) -> None:
    say(f"{found.system}: {found.loss}, {_asked(found)}")
    say(
        f"planned by {found.based_on}, {many(found.rows, 'labelled row')}; "
        f"a day's difference has a deviation of {found.sd:.2g}"
    )
    say()
    rows = [
        ("as good as what is live", *_outlook(found.as_good)),
        (f"worse by twice the margin, {2 * found.margin:g}", *_outlook(found.as_bad)),
    ]
    say_table(OUTLOOK, rows)
    say()
    say(smallest_margin(found))


def _show_goal(found: GoalForecast) -> None:
    say(f"{found.system}: mean label, {found.prefer} is better, {_asked(found)}")
    say(
        f"planned by {found.based_on}, {many(found.rows, 'labelled row')}, {found.rows_a_day:,.0f} a day; mean label "
        f"{found.mean:.3g}, which has a deviation of {found.sd_between:.2g} between days and {found.sd_within:.2g} "
        "within one"
    )
    say(what_a_day_tells(found))
    say()
    rows = [
        (_effect("better by the margin", found.margin, found.as_better), *_outlook(found.as_better)),
        ("as good as what is live", *_outlook(found.as_good)),
        (_effect("worse by the margin", found.margin, found.as_worse), *_outlook(found.as_worse)),
        (_effect("worse by twice the margin", 2 * found.margin, found.as_bad), *_outlook(found.as_bad)),
    ]
    say_table(OUTLOOK, rows)
    say()
    within = f"within {_in_days(found.within_days)}"
    columns = ("canary of", "half live within", "9 in 10 within", f"live {within}", "margin for half", "for 9 in 10")
    table = [
        (
            f"{100 * each.share:.3g}%{', as in the file' if each.share == found.share else ''}",
            *_days(each.lengths)[1:],
            percent(each.promoted, 0),
            *(value for _, value in _margins(each.margins)[1:]),
        )
        for each in found.shares
    ]
    say_table(columns, table, title="an equally good candidate")
    say()
    say(smallest_margin(found))
    if found.as_good.promoted <= MOST:
        say(what_would_do(found))


def what_a_day_tells(found: GoalForecast) -> str:
    """What one day says of two equal versions, and what keeps it from saying more."""
    said = f"with a canary of {percent(found.share, 0)}"
    if found.sd is None:
        said += " a version has fewer than 30 rows on all days, so none of them counts"
        return said
    said += f" a day's difference of two equal versions has a deviation of {found.sd:.2g}"
    if (left_out := percent(found.left_out, 0)) != percent(0, 0):
        said += f"; {left_out} of days are left out, as a version has fewer than 30 rows on them"
    if found.group_days is not None and found.group_days > 1:
        together = f"about {many(round(found.group_days), 'day')} are put together to one observation"
        said += f"; the goal is rare, so {together}, and an interval needs {found.least_observations} of these"
    if found.rarer < FEW:
        said += f"; only {many(found.rarer, 'row')} with a rarer label to plan by, so this is a rough guess"
    return said


def what_would_do(found: GoalForecast) -> str:
    """Which margin, share or length lets half of equally good candidates go live in time; two together as well."""
    few = (
        f"{percent(found.as_good.promoted, 0)} of equally good candidates go live within {_in_days(found.within_days)}"
    )
    if (unknown := percent(1 - found.known, 0)) != percent(0, 0):
        few += f"; in {unknown} of releases there are too few observations for any interval"
    is_rare = found.group_days is not None and found.group_days > 1
    instead = "choose a label that is more common" if is_rare else "it takes more rows a day"
    ways = [way for _, way in sorted(_ways(found))]
    if not ways:
        return f"{few}; no margin, no canary and no length up to a year would do: {instead}"
    return f"{few}. For half of them it takes {', or '.join(ways)}{f'; or {instead}' if is_rare else ''}"


def _ways(found: GoalForecast) -> Iterator[tuple[int, str]]:
    """What would do, with the number of settings that it changes."""
    own = next(each for each in found.shares if each.share == found.share)
    for each in (own, *_better_shares(found)):
        canary = "" if each is own else f"a canary of {percent(each.share, 0)}"
        if canary and each.promoted >= MOST:
            yield 1, canary
            return
        changes = 2 if canary else 1
        if each.margins.half is not None:
            yield changes, f"{canary}{' with ' if canary else ''}a margin of {each.margins.half:.2g}"
        if each.lengths.half is not None:
            length = f"`within: {math.ceil(each.lengths.half)}d`"
            yield changes, f"{canary}{' with ' if canary else ''}{length}"


def _better_shares(found: GoalForecast) -> list[ShareOutlook]:
    """The smallest share that alone would do, else the one that is decided soonest, where that is another one."""
    enough = [each for each in found.shares if each.promoted >= MOST]
    soonest = [min(found.shares, key=lambda each: (each.lengths.half or math.inf, each.share))]
    return [each for each in (enough or soonest)[:1] if each.share != found.share]


def _effect(said: str, asked: float, outlook: GoalOutlook) -> str:
    """The candidate, with what its labels have room for where that is less."""
    effect = abs(outlook.effect)
    if math.isclose(effect, asked, rel_tol=1e-6):
        return f"{said}, {asked:.3g}"
    return f"{said.split()[0]} by all there is, {effect:.2g}"


def _asked(found: ReleaseForecast | GoalForecast) -> str:
    return (
        f"margin {found.margin:g}, confidence {found.confidence:g}, within {_in_days(found.within_days)}; "
        f"steps take at least {_in_days(found.least_days)}, labels {_in_days(found.maturity_days)}"
    )


def smallest_margin(found: ReleaseForecast | GoalForecast) -> str:
    """The smallest margin, or why within so few days no margin is decided."""
    within = f"within {_in_days(found.within_days)}"
    if found.within_days < found.least_days:
        return f"cannot be decided for a candidate {within}: the steps alone take {_in_days(found.least_days)}"
    if found.within_days < found.maturity_days + 1:
        first = _in_days(found.maturity_days + 1)
        return f"cannot be decided {within}: the labels of the first day are complete after {first}"
    said = "; ".join(f"{share} of them {value}" for share, value in _margins(found.margins))
    return f"smallest margin that lets an equally good candidate pass {within}: {said}"


def _in_days(days: float) -> str:
    return f"{days:.4g} day{'' if days == 1 else 's'}"


def _outlook(outlook: Outlook) -> tuple[str, ...]:
    shares = (outlook.promoted, outlook.refused, outlook.undecided)
    return (*_days(outlook.days), *(percent(share, 0) for share in shares))


def _days(spread: Spread) -> tuple[str, ...]:
    ends = (spread.one_in_ten, spread.half, spread.nine_in_ten)
    return tuple("over a year" if end is None else _in_days(round(end)) for end in ends)


def _margins(spread: Spread) -> list[tuple[str, str]]:
    ends = (("1 in 10", spread.one_in_ten), ("half", spread.half), ("9 in 10", spread.nine_in_ten))
    return [(share, "none" if value is None else f"{value:.2g}") for share, value in ends]
