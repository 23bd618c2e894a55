"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SystemFile = Annotated[Path, typer.Argument(metavar="FILE", help="The system file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = Path("holdfast.yaml")
