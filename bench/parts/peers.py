"""The peers: each in an environment of its own, made from its pinned requirements, served by its own small file."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from parts.bodies import Form
from parts.flights import NotAvailable, Trained
from parts.servers import Server, process

HERE = Path(__file__).parent.parent / "peers"
ENVIRONMENTS = Path(__file__).parent.parent / ".peers"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer by its name in `PEERS`: which package in whose environment, where it answers, in which form."""

    title: str
    package: str
    path: str
    form: str
    home: str = ""
    """Name of the peer whose environment and file it shares; its own where empty."""
    settings: Mapping[str, str] = {}
    """Environment variables."""
    is_slow: bool = True


V2 = "/v2/models/flights/infer"
PEERS = {
    "mosec": Peer(title="mosec", package="mosec", path="/inference", form="data", is_slow=False),
    "mosec-batching": Peer(
        title="mosec, batches of 16",
        package="mosec",
        path="/inference",
        form="data",
        home="mosec",
        settings={"BATCH": "16"},
        is_slow=False,
    ),
    "fastapi": Peer(title="FastAPI + ONNX Runtime", package="fastapi", path="/predict", form="data", is_slow=False),
    "fastapi-raw": Peer(
        title="FastAPI, bodies read by hand", package="fastapi", path="/raw", form="data", home="fastapi", is_slow=False
    ),
    "mlserver": Peer(title="MLServer in process", package="mlserver", path=V2, form="packed"),
    "kserve": Peer(title="KServe SDK", package="kserve", path=V2, form="packed"),
    "litserve": Peer(title="LitServe", package="litserve", path="/predict", form="data"),
    "bentoml": Peer(title="BentoML", package="bentoml", path="/predict", form="data"),
    "mlserver-plain": Peer(
        title="MLServer in process, as it comes",
        package="mlserver",
        path=V2,
        form="packed",
        home="mlserver",
        settings={"PLAIN": "1"},
    ),
    "bentoml-plain": Peer(
        title="BentoML, as it comes",
        package="bentoml",
        path="/predict",
        form="data",
        home="bentoml",
        settings={"PLAIN": "1"},
    ),
    "pytriton": Peer(title="pytriton", package="nvidia-pytriton", path=V2, form="packed"),
    "mlflow": Peer(title="MLflow", package="mlflow", path="/invocations", form="inputs"),
    "ray": Peer(title="Ray Serve", package="ray", path="/", form="data"),
}
SETS = {
    "fast": ("mosec", "mosec-batching", "fastapi", "fastapi-raw"),
    "default": (
        *("mosec", "mosec-batching", "fastapi", "fastapi-raw", "mlserver", "mlserver-plain"),
        *("kserve", "litserve", "bentoml", "bentoml-plain"),
    ),
    "all": tuple(PEERS),
}


def chosen(words: str) -> list[str]:
    """Names of peers for a set or for names."""
    names = [name for word in words.split(",") for name in SETS.get(word.strip(), (word.strip(),))]
    for name in names:
        if name not in PEERS:
            raise SystemExit(f"no peer '{name}'; there are {', '.join(PEERS)}, and {', '.join(SETS)}")
    return names


def server(name: str, trained: Trained, forms: Mapping[str, Form]) -> Server:
    """A peer as a server; one that cannot be installed says so when it is started."""
    peer = PEERS[name]
    home = peer.home or name
    argv = [str(python_of(home)), "-P", str(HERE / f"serve_{home}.py"), str(trained.model)]
    places = {peer.form: (peer.path, forms[peer.form])}
    served = process(
        peer.title, argv, places, trained.directory / f"{name}.log", settings=peer.settings, is_slow=peer.is_slow
    )
    try:
        install(home)
    except NotAvailable as why:
        return _absent(served, str(why))
    return served


def versions() -> dict[str, str]:
    """Versions of the peers that are installed, by title, as pinned."""
    found = {}
    for name, peer in PEERS.items():
        if _mark(home := peer.home or name).exists():
            pinned = re.search(rf"^{re.escape(peer.package)}==(\S+)", _requirements(home).read_text(), re.MULTILINE)
            found[peer.title] = pinned[1] if pinned else "?"
    return found


def _absent(served: Server, why: str) -> Server:
    def start() -> "Iterator[None]":
        raise NotAvailable(why)

    return msgspec.structs.replace(served, start=start)  # type: ignore[arg-type]


def _requirements(name: str) -> Path:
    return HERE / f"{name}.txt"


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return ENVIRONMENTS / name / "bin" / "python"


def _mark(name: str) -> Path:
    """Stands there when the environment is what the requirements say."""
    return ENVIRONMENTS / name / f".ready-{sha256(_requirements(name).read_bytes()).hexdigest()[:16]}"


def install(name: str) -> None:
    """Make the environment of a peer unless it is there. Raises NotAvailable."""
    if _mark(name).exists():
        return
    print(f"installing {name} into {ENVIRONMENTS.name}/{name}", flush=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for argv in (
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENTS / name)],
        [*pip, "-r", str(_requirements(name))],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise NotAvailable(f"it cannot be installed: {lines[-1][:200]}")
    _mark(name).touch()
