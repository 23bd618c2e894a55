"""``holdfast release plan``: how long the next release will take, before it begins."""

from datetime import timedelta
from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table
from holdfast.core.clock import SystemClock
from holdfast.core.specwords import read_duration
from holdfast.flow.planning import Outlook, ReleaseForecast, Spread
from holdfast.lookups import only_system
from holdfast.planning import plan_release

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Releases that have not begun yet.")

Margin = Annotated[float | None, typer.Option("--margin", min=0.0, help="Instead of the file's decide.margin.")]
Within = Annotated[str, typer.Option("--within", metavar="28d", help="Instead of the file's decide.within.")]


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
    with opened(state) as here, here.catalog.read() as tx:
        found = plan_release(
            here,
            tx,
            only_system(tx, system),
            SystemClock().now(),
            margin=margin,
            within=_duration(within),
        )
    say_json(found) if as_json else _show(found)


def _duration(text: str) -> timedelta | None:
    return read_duration(text) if text else None


def _show(found: ReleaseForecast) -> None:
    say(
        f"{found.system}: {found.loss}, margin {found.margin:g}, confidence {found.confidence:g}, within "
        f"{found.within_days:g} days; steps take at least {found.least_days:g} days, labels {found.maturity_days:g}"
    )
    say(
        f"planned by {found.based_on}, {found.rows:,} labelled rows; "
        f"a day's difference has a deviation of {found.sd:.2g}"
    )
    say()
    rows = [
        ("as good as what is live", *_outlook(found.as_good)),
        (f"worse by twice the margin, {2 * found.margin:g}", *_outlook(found.as_bad)),
    ]
    columns = (
        "a candidate that is",
        "days to a decision: 1 in 10",
        "half",
        "9 in 10",
        "promoted",
        "refused",
        "expires",
    )
    say_table(columns, rows)
    say()
    say(
        f"smallest margin that lets an equally good candidate pass within {found.within_days:g} days: "
        + "; ".join(f"{share} of them {value}" for share, value in _margins(found.margins))
    )


def _outlook(outlook: Outlook) -> tuple[str, ...]:
    shares = (outlook.promoted, outlook.refused, outlook.undecided)
    return (*_days(outlook.days), *(f"{share:.0%}" for share in shares))


def _days(spread: Spread) -> tuple[str, ...]:
    ends = (spread.one_in_ten, spread.half, spread.nine_in_ten)
    return tuple("over a year" if end is None else f"{end:.0f}" for end in ends)


def _margins(spread: Spread) -> list[tuple[str, str]]:
    ends = (("1 in 10", spread.one_in_ten), ("half", spread.half), ("9 in 10", spread.nine_in_ten))
    return [(share, "none" if value is None else f"{value:.2g}") for share, value in ends]
