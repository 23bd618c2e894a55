"""A supervisor over serving workers, as a process of its own. Arguments: root, number of workers, patience as JSON."""

import logging
import sys
from pathlib import Path

import msgspec

from holdfast.serve.supervisor import ChildSpec, Patience, Supervisor, listen

WORKER = Path(__file__).with_name("serving_worker.py")


def main(root: Path, workers: int, patience: Patience) -> None:
    """Serve until told to stop; the port is said on standard output once the workers were started."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    listening = listen()
    fd = str(listening.fileno())
    children = [
        ChildSpec(
            name=name,
            argv=(sys.executable, str(WORKER), name, fd, str(root)),
            heartbeat=root / "run" / f"{name}.json",
        )
        for name in (f"worker-{number}" for number in range(workers))
    ]
    port = listening.getsockname()[1]
    Supervisor(children, [listening], patience=patience).run(lambda: print(port, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=Patience))
