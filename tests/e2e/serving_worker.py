"""A worker as a deployment composes it: signed artifacts, the lake on files. Arguments: name, socket, root."""

import sys
from pathlib import Path

from holdfast.core.clock import SystemClock
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.security.artifacts import load_model
from holdfast.wire.worker import WorkerSetup, run_worker


def main(name: str, fd: int, root: Path) -> None:
    lakes = {mode: FileLake(root / "lake", MemoryManifest(), record=mode) for mode in ("process", "disk", "memory")}

    def load(version):
        return load_model(Path(version.directory), Path(version.bundle).read_bytes(), root / "keys" / "public.pem")

    run_worker(
        WorkerSetup(
            name=name,
            socket_fd=fd,
            routes=root / "routes.json",
            run_dir=root / "run",
            load_model=load,
            open_writer=lambda record, table, system, schema: lakes[record].writer(table, system, schema),
            clock=SystemClock(),
            beat_s=0.2,
            retry_s=0.2,
        )
    )
    for lake in lakes.values():
        lake.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
