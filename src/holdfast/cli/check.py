"""``holdfast check``: is the system file in order?"""

import msgspec
import typer

from holdfast.cli.arguments import HERE, AsJson, SystemFile
from holdfast.core.specfile import read_spec, spec_hash


def check(file: SystemFile = HERE, as_json: AsJson = False) -> None:
    """Read a system file and say whether it is in order; every problem is printed with its line (exit code 2)."""
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
        typer.echo(msgspec.json.encode(found).decode())
        return
    typer.echo(f"{file}: system '{spec.system}' is in order ({spec_hash(spec)})")
    typer.echo("  " + ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items()))
