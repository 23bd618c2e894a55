"""The supervisor: prepares a state, then holds its lock and its sockets and keeps workers and keeper alive."""

import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from socket import socket
from typing import BinaryIO

import msgspec

from holdfast.errors import HoldfastError, StateError
from holdfast.places import RUN
from holdfast.presence import KEEPER, Prepared, hold, remove_presence, write_presence
from holdfast.serve.heartbeat import path_of
from holdfast.serve.supervisor import ChildSpec, Supervisor, listen


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is brought up, and where it listens. Port 0 takes a free one."""

    files: tuple[Path, ...]
    state: Path
    host: str = "127.0.0.1"
    port: int = 8080
    console_port: int = 8081
    grpc_port: int | None = None
    """None where gRPC is not served."""
    workers: int = 1
    bodies_mib: int = 256
    """Most MiB of requests that each worker holds, not answered yet."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """PEM files of certificate and key: both, or none where nothing is encrypted."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What is told once everything was started."""

    url: str
    console: str
    grpc: str = ""
    """Host and port of gRPC; empty where that is not served."""
    token: str
    """The secret of the first admin token, on the very first start only; empty later."""
    systems: dict[str, str]
    """Each system and its live version, empty where there is none yet."""
    elsewhere: tuple[str, ...] = ()
    """Those whose model is served elsewhere."""
    is_local: bool
    is_encrypted: bool = False


def run_up(options: UpOptions, *, by: str, tell: Callable[[Started], None]) -> None:
    """Bring systems up and keep them up until SIGTERM or SIGINT.

    Raises AlreadyRunning when another `up` holds the state, SpecError for a file that is not in order, StateError
    when a port is taken or the certificate is none.
    """
    if options.workers < 1:
        raise HoldfastError(f"{options.workers} workers cannot answer; give --workers 1 or more")
    tls = _tls(options)
    scheme = "https" if tls else "http"
    directory = options.state.resolve()
    run_dir = directory / RUN
    with hold(run_dir):
        serving, console = listen(options.host, options.port), listen(options.host, options.console_port)
        grpc = None if options.grpc_port is None else listen(options.host, options.grpc_port)
        sockets = [each for each in (serving, console, grpc) if each is not None]
        # Workers start while the state is being prepared, and wait at the gate: it opens when nobody holds its end.
        gate_fd, opener_fd = os.pipe()
        gate, opener = os.fdopen(gate_fd, "rb"), os.fdopen(opener_fd, "wb")
        workers = tuple(f"worker-{number}" for number in range(1, options.workers + 1))
        children = [
            _worker(directory, name, serving, grpc, gate, (*tls, "--bodies-mib", str(options.bodies_mib)))
            for name in workers
        ]
        children.append(_keeper(directory, console.fileno(), tls))
        preparing = _preparing(directory, options.files, by)

        supervisor = Supervisor(children, [*sockets, gate])

        def open_gate() -> None:
            prepared = _prepared(preparing, directory, lambda: supervisor.is_stopping)
            if prepared is None:
                return
            started = Started(
                url=f"{scheme}://{_place(serving.getsockname())}",
                console=f"{scheme}://{_place(console.getsockname())}",
                grpc="" if grpc is None else _place(grpc.getsockname()),
                token=prepared.token,
                systems=prepared.systems,
                elsewhere=prepared.elsewhere,
                is_local=_is_local(options.host),
                is_encrypted=bool(tls),
            )
            opener.close()
            write_presence(run_dir, url=started.url, console=started.console, workers=workers, grpc=started.grpc)
            tell(started)

        try:
            supervisor.run(on_started=open_gate)
        finally:
            opener.close()
            if preparing.poll() is None:
                preparing.terminate()
                preparing.wait()
            remove_presence(run_dir)


def _preparing(directory: Path, files: Sequence[Path], by: str) -> "subprocess.Popen[bytes]":
    """Prepare the state in a process of its own: the libraries that takes would stay in this one for as long as it
    lives, and what is not there cannot fail."""
    names = [str(file.resolve()) for file in files]
    argv = [sys.executable, "-m", "holdfast.processes.prepare", "--state", str(directory), "--by", by, *names]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)  # noqa: S603


def _prepared(
    preparing: "subprocess.Popen[bytes]", directory: Path, is_stopping: Callable[[], bool]
) -> Prepared | None:
    """What preparing gave; None where everything is to stop before that."""
    output = None
    while output is None:
        try:
            output, _ = preparing.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            if is_stopping():
                return None
    try:
        said = msgspec.json.decode(output, type=Prepared)
    except msgspec.DecodeError as error:
        raise StateError(
            f"{directory} could not be prepared: the process ended with code {preparing.returncode}; what it wrote is "
            "above"
        ) from error
    if said.error:
        raise _told(said.error, preparing.returncode)
    return said


def _told(message: str, exit_code: int) -> HoldfastError:
    """The error of the process that prepared, with its exit code."""
    error = HoldfastError(message)
    error.exit_code = exit_code
    return error


def _worker(
    directory: Path, name: str, serving: socket, grpc: socket | None, gate: BinaryIO, options: Sequence[str]
) -> ChildSpec:
    argv = [sys.executable, "-m", "holdfast.processes.worker", "--state", str(directory), "--fd", str(serving.fileno())]
    argv += ["--gate", str(gate.fileno()), *options]
    if grpc is not None:
        argv += ["--grpc-fd", str(grpc.fileno())]
    return ChildSpec(name=name, argv=(*argv, "--name", name), heartbeat=path_of(directory / RUN, name))


def _keeper(directory: Path, fd: int, options: Sequence[str]) -> ChildSpec:
    """No heartbeat: a tick may take as long as it takes, and what is served does not depend on it."""
    argv = (sys.executable, "-m", "holdfast.processes.keeper", "--state", str(directory), "--fd", str(fd))
    return ChildSpec(name=KEEPER, argv=(*argv, *options), waits=True)


def _tls(options: UpOptions) -> tuple[str, ...]:
    """How children are told of the certificate; empty where nothing is encrypted. Raises where it is none."""
    certificate, key = options.tls_cert, options.tls_key
    if certificate is None and key is None:
        return ()
    if certificate is None or key is None:
        given, lacking = ("--tls-key", "--tls-cert") if certificate is None else ("--tls-cert", "--tls-key")
        raise HoldfastError(f"{given} is given without {lacking}; TLS takes both, as PEM files")
    certificate, key = certificate.resolve(), key.resolve()
    tls = import_module("holdfast.wire.tls")  # the library stays out of this process where nothing is encrypted
    tls.server_context(tls.Tls(certificate=certificate, key=key), [])
    return ("--tls-cert", str(certificate), "--tls-key", str(key))


def _place(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
