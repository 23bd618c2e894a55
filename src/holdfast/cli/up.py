"""``holdfast up``: everything on one machine, kept alive until it is told to stop."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.arguments import HERE, STATE, StateDirectory
from holdfast.cli.output import say
from holdfast.cli.person import person
from holdfast.places import ROUTES
from holdfast.processes.logs import log_to_stderr
from holdfast.processes.up import Started, UpOptions, run_up

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="System files to put in force; none: those in force go on, where there are none holdfast.yaml is taken.",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; everything but loopback can be reached from outside.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port for predictions and labels; 0 takes a free one.")]
ConsolePort = Annotated[int, typer.Option(min=0, max=65535, help="Port of console and API; 0 takes a free one.")]
GrpcPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port for gRPC, not served by default; 0 takes a free one.")
]
Workers = Annotated[int, typer.Option(help="How many processes answer.")]
BodiesMib = Annotated[
    int, typer.Option(min=16, help="Most MiB of requests that each worker holds, not answered yet; beyond it: 503.")
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="PEM file of a certificate: all ports are encrypted with it and --tls-key."
    ),
]
Key = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of its key, without a password.")]
WEBHOOK = "HOLDFAST_WEBHOOK"
"""Environment variable with the URL that notices are sent to; what reads it is not loaded here."""


def up(
    files: Files = None,
    state: StateDirectory = STATE,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    console_port: ConsolePort = 8081,
    grpc_port: GrpcPort = None,
    workers: Workers = 1,
    bodies_mib: BodiesMib = 256,
    tls_cert: Certificate = None,
    tls_key: Key = None,
) -> None:
    """Train, release, serve, record, watch and put right: all systems of a state, until Ctrl+C or SIGTERM."""
    log_to_stderr()
    if (tls_cert is None) != (tls_key is None):
        given, lacking = ("--tls-key", "--tls-cert") if tls_cert is None else ("--tls-cert", "--tls-key")
        raise typer.BadParameter(f"given without {lacking}; TLS takes both, as PEM files", param_hint=f"'{given}'")
    options = UpOptions(
        files=files_of(files or (), state),
        state=state,
        host=host,
        port=port,
        console_port=console_port,
        grpc_port=grpc_port,
        workers=workers,
        bodies_mib=bodies_mib,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    run_up(options, by=person(), tell=_tell)


def files_of(given: Sequence[Path], state: Path) -> tuple[Path, ...]:
    """The system files to put in force: those given, or that of this folder where the state holds no system yet."""
    if not given and HERE.is_file() and not _holds_systems(state / ROUTES):
        say(f"{HERE} is put in force: no file was named, and {state} holds no system yet")
        return (HERE,)
    return tuple(given)


def _holds_systems(routes: Path) -> bool:
    """Whether the routes name a system: those of a state that only has tokens name none. Damaged ones may hold some.

    The sealed JSON is read for this alone: what verifies it would stay in this process for as long as it lives.
    """
    try:
        return bool(json.loads(routes.read_bytes())["routes"]["systems"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def unheard(environment: Mapping[str, str]) -> str:
    """What is said where notices reach the log alone; empty where they go to a webhook too."""
    if environment.get(WEBHOOK):
        return ""
    return f"nobody is told of incidents outside this log; set {WEBHOOK} to a URL that they are sent to"


def _tell(started: Started) -> None:
    for system, live in started.systems.items():
        if system in started.elsewhere:
            say(f"{system}: served elsewhere, watched here; POST {started.url}/predictions/{system}")
            continue
        now = f"version {live} is live" if live else "no version yet: training begins now"
        say(f"{system}: {now}; POST {started.url}/predict/{system}")
    if started.grpc:
        say(f"gRPC: {started.grpc}")
    if started.token:
        say(f"admin token, shown this once: {started.token}")
        say(f"console: {started.console}/?token={started.token}")
    else:
        say(f"console: {started.console}/  (more tokens: holdfast token new NAME)")
    if not (started.is_local or started.is_encrypted):
        say(
            "this can be reached from other machines, and nothing is encrypted: give --tls-cert and --tls-key, or put "
            "a TLS proxy in front of it"
        )
    if said := unheard(os.environ):
        say(said)
    say("stop with Ctrl+C")
