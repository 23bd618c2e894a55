"""``holdfast show``: every setting and where it came from."""

import msgspec
import typer

from holdfast.cli.arguments import HERE, AsJson, SystemFile
from holdfast.core.specdump import settings
from holdfast.core.specfile import origins, read_spec


def show(file: SystemFile = HERE, as_json: AsJson = False) -> None:
    """Print every setting of a system, its value, and the line that states it, or `default`."""
    spec = read_spec(file)
    lines = origins(file.read_text(encoding="utf-8"))
    rows = [(path, value, f"{file}:{lines[path]}" if path in lines else "default") for path, value in settings(spec)]
    if as_json:
        found = [{"setting": path, "value": value, "from": origin} for path, value, origin in rows]
        typer.echo(msgspec.json.encode(found).decode())
        return
    width = max(len(origin) for _, _, origin in rows)
    for path, value, origin in rows:
        typer.echo(f"{origin:<{width}}  {path}: {value}")
