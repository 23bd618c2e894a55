"""The command line: one line of data per command, whose module is imported when it is called."""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from holdfast.cli.version import version
from holdfast.errors import HoldfastError

COMMANDS = {
    "check": ("holdfast.cli.check:check", "Say whether a system file is in order."),
    "show": ("holdfast.cli.show:show", "Print every setting of a system and where it came from."),
    "schema": ("holdfast.cli.schema:schema", "Print the JSON Schema of the system file, for editors."),
    "init": ("holdfast.cli.init:init", "Infer a system file from data."),
    "backtest": (
        "holdfast.cli.backtest:backtest",
        "Say what each policy would have cost and caught.",
    ),
    "demo": ("holdfast.cli.demo:demo", "Run the whole loop on a year of real flights."),
    "up": ("holdfast.cli.up:up", "Train, serve, watch and put right, until it is told to stop."),
    "train": ("holdfast.cli.train:train", "Train once and begin the release."),
    "ingest": ("holdfast.cli.ingest:ingest", "Take in what the feeds have."),
    "buckets": ("holdfast.cli.buckets:buckets", "Count recorded answers by hour, for drift."),
    "predict": ("holdfast.cli.predict:predict", "Score a file of rows, however large."),
    "stream": ("holdfast.cli.stream:stream", "Score the messages of a topic, and send the answers to another."),
    "profile": ("holdfast.cli.profile:profile", "Say where a request's time goes, and what to change."),
    "status": ("holdfast.cli.status:status", "Say how everything stands."),
    "incidents": ("holdfast.cli.incidents:incidents", "List what is wrong and what was done about it."),
    "releases": ("holdfast.cli.releases:releases", "List releases with their evidence."),
    "release": ("holdfast.cli.release:app", "Say how long a release will take, before it begins."),
    "models": ("holdfast.cli.models:models", "List versions, back to the files they came from."),
    "runs": ("holdfast.cli.runs:runs", "List trainings."),
    "why": ("holdfast.cli.why:why", "Explain one recorded answer."),
    "replay": ("holdfast.cli.why:replay", "Compute one recorded answer again."),
    "rollback": ("holdfast.cli.rollback:rollback", "Go back to the version that was live before."),
    "audit": ("holdfast.cli.audit:app", "Show and verify the log of changes."),
    "token": ("holdfast.cli.token:app", "Make, list and revoke access tokens."),
    "version": ("holdfast.cli.version:version", "Print the versions of Holdfast and Python."),
}
"""Name -> where its function (or a typer.Typer with commands of its own) is, and what `holdfast --help` says of it."""


class LazyCommand(TyperCommand):
    """Stands for a command until it is called, so that ``--help`` imports none."""

    def __init__(self, name: str, where: str, help: str) -> None:
        super().__init__(name=name, help=help, callback=None, params=[], rich_markup_mode=None)
        self._where = where

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command: parsing, help and running are all its own."""
        return self.real().make_context(info_name, args, parent, **extra)

    def real(self) -> Any:
        """The command that this one stands for; imports its module."""
        module, _, attribute = self._where.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(self.name)(found)
            found = app
        return typer.main.get_command(found)


class Commands(TyperGroup):
    """The commands of `COMMANDS`, in that order."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (where, help) in COMMANDS.items():
            self.add_command(LazyCommand(name, where, help))


app = typer.Typer(
    cls=Commands,
    help="Runs machine-learning systems in production and holds them to what was promised.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # commands take it over from here
)


def _tell_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the versions and end.")
    ] = False,
) -> None:
    """The options before a command."""


def main() -> None:
    """Run one command. An error that Holdfast raises on purpose is told in a line per problem, with its exit code."""
    try:
        app(prog_name="holdfast")
    except HoldfastError as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a folder that is not there or not writable, a full disk: the machine's own words
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}; check the path, its permissions and the disk", err=True)
        sys.exit(1)
