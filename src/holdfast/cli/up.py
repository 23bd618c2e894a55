"""``holdfast up``: everything on one machine, kept alive until it is told to stop."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, StateDirectory
from holdfast.cli.output import say
from holdfast.cli.person import person
from holdfast.processes.logs import log_to_stderr
from holdfast.processes.up import Started, UpOptions, run_up

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="System files to put in force; none: those in force go on."),
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
    Path | None, typer.Option(help="PEM file of a certificate: all ports are encrypted with it and --tls-key.")
]
Key = Annotated[Path | None, typer.Option(help="PEM file of its key, without a password.")]


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
    options = UpOptions(
        files=tuple(files or ()),
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
    say("stop with Ctrl+C")
