"""How fast one worker answers single rows over gRPC, each recorded before its answer is sent, beside grpcio's server.

LightGBM, 200 trees of 31 leaves, 13 numbers a row. The peer is grpcio's asyncio server with ONNX Runtime; it records
nothing. The load sends frames that were made beforehand, from one process on the same machine: on few cores it competes
with the servers for them, so compare the processor time per request, which does not depend on that.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from parts.calls import calls, drive_calls
from parts.figures import median_of, options, report
from parts.flights import onnx_of
from parts.small import FEATURES, make, up

HERE = Path(__file__).parent
HOME = HERE / ".peers" / "grpcio"
ROWS = 4096
WORKLOADS = [("packed", 16, 1), ("packed", 16, 4), ("packed", 64, 1), ("named", 16, 1)]
"""Form of the tensors, connections, calls open on each."""


@contextmanager
def holdfast(directory: Path) -> Iterator[tuple[int, str, psutil.Process]]:
    """Port, token and worker."""
    port = _free_port()
    with up(directory, **{"grpc-port": port}) as running:
        children = psutil.Process(running.process.pid).children(recursive=True)
        [worker] = [each for each in children if "holdfast.processes.worker" in each.cmdline()]
        running.first_answer_s()
        yield port, running.token, worker


@contextmanager
def grpcio(directory: Path) -> Iterator[tuple[int, str, psutil.Process]]:
    """The peer, in an environment of its own."""
    if not (HOME / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", str(HERE / "peers" / "grpcio.txt")], check=True)
        (HOME / "ready").touch()
    [artifact] = [each.parent for each in (directory / "state" / "models").glob("*/facts.json")]
    model, port = directory / "model.onnx", _free_port()
    model.write_bytes(onnx_of(artifact))
    argv = [str(HOME / "bin" / "python"), str(HERE / "peers" / "serve_grpcio.py"), str(model), str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("grpcio's server did not start")
        yield port, "none", psutil.Process(process.pid)
        process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measure both servers in turn."""
    given = options(__doc__ or "", seconds=3.0)
    rows = np.random.default_rng(1).normal(size=(ROWS, FEATURES))
    bodies = {form: calls("small", rows, form) for form in ("packed", "named")}
    figures = []
    with TemporaryDirectory() as place:
        directory = Path(place)
        make(directory)
        for serve in (holdfast, grpcio):
            with serve(directory) as (port, token, process):

                def measure(form: str, connections: int, streams: int) -> dict[str, float]:
                    before_s, began_s = sum(process.cpu_times()[:2]), time.perf_counter()
                    load = drive_calls(
                        port,
                        token,
                        bodies[form],
                        connections=connections,
                        streams=streams,
                        seconds=given.seconds,
                    )
                    took_s = time.perf_counter() - began_s
                    cpu_us = (sum(process.cpu_times()[:2]) - before_s) / load.requests * 1e6
                    if load.failed:
                        raise SystemExit(f"{load.failed} of {load.requests} calls failed")
                    return {
                        "requests_per_s": load.requests / took_s,
                        "p50_ms": load.p50_ms,
                        "p99_ms": load.p99_ms,
                        "cpu_us_per_request": cpu_us,
                    }

                measure("packed", 16, 1)
                for form, connections, streams in WORKLOADS:
                    said = {"server": serve.__name__, "form": form, "connections": connections, "streams": streams}
                    found = median_of(given.repeats, lambda: measure(form, connections, streams))  # noqa: B023
                    figures.append({**said, **found})
    report("grpc", figures, given.json)


if __name__ == "__main__":
    main()
