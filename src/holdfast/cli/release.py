"""``holdfast release plan``: how long the next release will take, before it begins."""

from datetime import timedelta
from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many, percent
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
    deadline = _duration(within)
    with opened(state) as here, here.catalog.read() as tx:
        found = plan_release(
            here,
            tx,
            only_system(tx, system),
            SystemClock().now(),
            margin=margin,
            within=deadline,
        )
    say_json(found) if as_json else _show(found)


def _duration(text: str) -> timedelta | None:
    """The option's duration; None where it is not given. Raises BadParameter, which ends with exit code 2."""
    try:
        return read_duration(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{error}; for example --within 28d", param_hint="'--within'") from None


def _show(found: ReleaseForecast) -> None:
    say(
        f"{found.system}: {found.loss}, margin {found.margin:g}, confidence {found.confidence:g}, within "
        f"{_in_days(found.within_days)}; steps take at least {_in_days(found.least_days)}, "
        f"labels {_in_days(found.maturity_days)}"
    )
    say(
        f"planned by {found.based_on}, {many(found.rows, 'labelled row')}; "
        f"a day's difference has a deviation of {found.sd:.2g}"
    )
    say()
    rows = [
        ("as good as what is live", *_outlook(found.as_good)),
        (f"worse by twice the margin, {2 * found.margin:g}", *_outlook(found.as_bad)),
    ]
    columns = (
        "a candidate that is",
        "1 in 10 within",
        "half within",
        "9 in 10 within",
        "promoted",
        "refused",
        "expires",
    )
    say_table(columns, rows)
    say()
    say(smallest_margin(found))


def smallest_margin(found: ReleaseForecast) -> str:
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
