"""``holdfast schema``: what editors need to complete and check a system file."""

import msgspec
import typer

from holdfast.core.specschema import file_schema


def schema() -> None:
    """Print the JSON Schema of the system file.

    Write it to a file and name that file in a first line `# yaml-language-server: $schema=holdfast.schema.json`.
    """
    typer.echo(msgspec.json.format(msgspec.json.encode(file_schema())).decode())
