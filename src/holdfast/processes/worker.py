"""A worker: ``python -m holdfast.processes.worker --state DIR --fd N --name worker-1``.

Opens no catalog: it answers from the routes file, the unpacked models and its own segments of the lake, so it goes on
when everything else is gone.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from holdfast.core import kinds
from holdfast.core.clock import SystemClock
from holdfast.core.protocols import Field, Lake, Writer
from holdfast.engines.manifest import MemoryManifest
from holdfast.places import ROUTES, RUN
from holdfast.processes.logs import log_to_stderr
from holdfast.state import load_routed
from holdfast.wire.bodies import LIMIT_BYTES
from holdfast.wire.tls import Tls
from holdfast.wire.worker import Durability, WorkerSetup, run_worker


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop, or until the supervisor is gone."""
    parser = argparse.ArgumentParser(prog="holdfast.processes.worker")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--grpc-fd", type=int)
    parser.add_argument("--gate", type=int)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--bodies-mib", type=int, default=LIMIT_BYTES >> 20)
    parser.add_argument("--name", required=True)
    given = parser.parse_args(arguments)
    log_to_stderr()
    if given.gate is not None:
        with os.fdopen(given.gate, "rb") as gate:  # until the state is prepared; all that can be is loaded by then
            gate.read()
    lakes = _Lakes(given.state / "lake")
    run_worker(
        WorkerSetup(
            name=given.name,
            socket_fd=given.fd,
            grpc_fd=given.grpc_fd,
            routes=given.state / ROUTES,
            run_dir=given.state / RUN,
            load_model=lambda routed: load_routed(given.state, routed),
            open_writer=lakes.writer,
            clock=SystemClock(),
            tls=None if given.tls_cert is None else Tls(certificate=given.tls_cert, key=given.tls_key),
            bodies_bytes=given.bodies_mib << 20,
        )
    )
    lakes.close()


class _Lakes:
    """The lake, opened once per durability, by whichever thread asks first. A writer needs no manifest: that lists what
    was rolled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[Durability, Lake] = {}
        self._opening = Lock()

    def writer(self, record: Durability, table: str, system: str, schema: Sequence[Field]) -> Writer:
        with self._opening:
            if record not in self._open:
                lake = kinds.load("engines", "lake+files")(self._directory, MemoryManifest(), record=record)
                self._open[record] = lake
        return self._open[record].writer(table, system, schema)

    def close(self) -> None:
        for lake in self._open.values():
            lake.close()


if __name__ == "__main__":
    main()
