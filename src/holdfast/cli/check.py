"""``holdfast check``: is the system file in order?"""

import msgspec
import typer

from holdfast.cli.arguments import HERE, AsJson, SystemFile
from holdfast.cli.output import say_table
from holdfast.core.specfile import read_spec, spec_hash
from holdfast.flow.budget import HEADS, alarms, planned, table
from holdfast.flow.reference import REFERENCE_DAYS


def check(file: SystemFile = HERE, as_json: AsJson = False) -> None:
    """Read a system file and say whether it is in order; every problem is printed with its line (exit code 2).

    Says too how the budget of false alarms would be split over its monitors.
    """
    spec = read_spec(file)
    counts = {
        "feeds": len(spec.data.feeds),
        "columns": len(spec.data.columns),
        "gates": len(spec.gates),
        "monitors": len(spec.monitors),
        "responses": len(spec.responses),
    }
    if as_json:
        found = {"system": spec.system, "file": str(file), "hash": spec_hash(spec), **counts}
        found |= {"false_alarms": spec.false_alarms, "budget": planned(spec)}
        typer.echo(msgspec.json.encode(found).decode())
        return
    typer.echo(f"{file}: system '{spec.system}' is in order ({spec_hash(spec)})")
    typer.echo("  " + ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items()))
    if spec.monitors:
        budget = f"of {alarms(spec.false_alarms)} a month, were history {REFERENCE_DAYS} days long"
        typer.echo(f"  {budget}; `holdfast status` says what it is:")
        say_table(HEADS, table(planned(spec)))
