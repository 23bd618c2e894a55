"""``holdfast backtest``: what would each policy have cost and caught?"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from holdfast.backtest.faults import read_faults
from holdfast.backtest.replay import POLICIES
from holdfast.backtest.report import show, to_json
from holdfast.backtest.runner import run_backtest
from holdfast.cli.arguments import HERE, SystemFile
from holdfast.cli.progress import BacktestProgress, must_be_writable
from holdfast.core.blocks import block_bounds
from holdfast.core.specfile import read_spec
from holdfast.errors import HoldfastError, did_you_mean

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


def backtest(
    file: SystemFile = HERE,
    policies: Annotated[str, typer.Option(help="Which policies to run, with commas between.")] = ",".join(POLICIES),
    start: Day = None,
    end: Day = None,
    faults: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="YAML list of faults for a run of their own.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many runs at a time.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the report there as JSON.")] = None,
) -> None:
    """Play history through the real loop on a replayed clock: one run per policy, and one more with faults.

    Policies: `never` retrains, `monthly` every 30 days, `evidence` as the file's responses say. --start and --end are
    days in the system's time zone; the first training happens at --start, by default after a quarter of the history.
    """
    spec = read_spec(file)
    chosen = list(dict.fromkeys(policy.strip() for policy in policies.split(",")))
    for policy in chosen:
        if policy not in POLICIES:
            raise HoldfastError(f"--policies: no policy '{policy}'{did_you_mean(policy, POLICIES)}")
    must_be_writable(json)
    injected = read_faults(faults.read_bytes(), str(faults)) if faults else ()
    zone = spec.data.timezone
    with BacktestProgress([*chosen, *(["faults"] if injected else [])]) as progress:
        report = run_backtest(
            spec,
            file.resolve().parent,
            policies=chosen,
            faults=injected,
            start=block_bounds(zone, start.date())[0] if start else None,
            end=block_bounds(zone, end.date())[0] if end else None,
            processes=processes,
            on_event=progress.on_event,
        )
    show(report, spec.model.task, Console())
    if json is not None:
        json.write_bytes(to_json(report, spec.model.task))
        typer.echo(f"written: {json}")
