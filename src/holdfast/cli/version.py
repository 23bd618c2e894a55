"""``holdfast version``."""

import platform

import typer

from holdfast import __version__


def version() -> None:
    """Print the versions of Holdfast and of the Python that runs it."""
    typer.echo(f"holdfast {__version__} (Python {platform.python_version()})")
