"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SystemFile = Annotated[Path, typer.Argument(metavar="FILE", help="The system file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StateDirectory = Annotated[
    Path, typer.Option("--state", metavar="DIR", envvar="HOLDFAST_STATE", help="Where the state lies.")
]
SystemName = Annotated[
    str, typer.Option("--system", metavar="NAME", help="Which system, where the state holds several.")
]
HERE = Path("holdfast.yaml")
STATE = Path(".holdfast")
