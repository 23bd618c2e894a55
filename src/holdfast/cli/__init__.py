"""Door one: the command line. Each command is a module of its own; `app.py` lists them."""

from holdfast.cli.app import main

__all__ = ["main"]
