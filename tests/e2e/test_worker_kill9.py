"""Real workers on a real socket, recording into files: killed, stopped, and given bad routes under load."""

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, encode
from holdfast.core.spec import Serve
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.serve.heartbeat import read_heartbeat
from holdfast.serve.supervisor import ChildSpec, Patience, Supervisor, await_generation, listen

from .deployments import ROW

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("serving_worker.py")


class Deployment:
    """A supervisor with its workers, looked after by hand so that everything happens in one thread."""

    def __init__(self, root: Path, workers: int, patience: Patience) -> None:
        self.root = root
        self.run_dir = root / "run"
        self.run_dir.mkdir()
        self.names = [f"worker-{i}" for i in range(workers)]
        self.generation = 0
        self.route("1")
        listening = listen()
        self.url = "http://{}:{}".format(*listening.getsockname())
        self.supervisor = Supervisor(
            [
                ChildSpec(
                    name=name,
                    argv=(sys.executable, str(WORKER), name, str(listening.fileno()), str(root)),
                    heartbeat=self.run_dir / f"{name}.json",
                )
                for name in self.names
            ],
            [listening],
            patience=patience,
        )
        self.supervisor.look()

    def route(self, version: str, **serve) -> int:
        """Put a version live in routes of their own generation."""
        self.generation += 1
        at = self.root / "artifacts"
        live = RoutedVersion(
            version=version, artifact=version, directory=str(at / version), bundle=str(at / f"{version}.bundle")
        )
        system = RoutedSystem(
            task="classification", output="probability", live=live, key="id", unit="tailnum", serve=Serve(**serve)
        )
        self.write_routes(encode(Routes(generation=self.generation, systems={"flights": system})))
        return self.generation

    def write_routes(self, data: bytes) -> None:
        temporary = self.root / "routes.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self.root / "routes.json")

    def until(self, condition, deadline_s: float = 20.0) -> None:
        """Look after the workers until a condition holds."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, "not in time"
            self.supervisor.look()
            time.sleep(0.01)

    def acknowledge(self, generation: int) -> None:
        self.until(lambda: not await_generation(self.run_dir, generation, self.names, deadline_s=0.0))

    def beat(self, name: str = "worker-0"):
        return read_heartbeat(self.run_dir, name)

    def predict(self, request_id: str) -> httpx.Response:
        return httpx.post(f"{self.url}/predict/flights", json=ROW, headers={"x-request-id": request_id}, timeout=10)

    def recorded(self, table: str = "predictions"):
        return FileLake(self.root / "lake", MemoryManifest()).scan(table, "flights")


@pytest.fixture
def deploy(tmp_path, signed_versions):
    """Starts workers on version 1 and waits until they serve it."""
    running = []

    def start(workers: int = 1, patience: Patience | None = None) -> Deployment:
        shutil.copytree(signed_versions, tmp_path, dirs_exist_ok=True)
        deployment = Deployment(tmp_path, workers, patience or Patience())
        running.append(deployment)
        deployment.acknowledge(1)
        return deployment

    yield start
    for deployment in running:
        deployment.supervisor.end()


async def load(deployment: Deployment, requests: int, clients: int, at_half) -> dict[str, int]:
    """Sends requests until each is acknowledged, retrying with the same id; returns how often each was sent."""
    waiting = [f"q{i}" for i in range(requests)]
    sent: dict[str, int] = {}
    acknowledged: set[str] = set()
    halfway = asyncio.Event()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=deployment.url, timeout=10) as http:
            while waiting:
                request_id = waiting.pop()
                body = {"rows": [ROW | {"id": f"{request_id}-{i}"} for i in range(2)], "id": request_id}
                while request_id not in acknowledged:
                    sent[request_id] = sent.get(request_id, 0) + 1
                    try:
                        answer = await http.post("/predict/flights", json=body)
                    except httpx.TransportError:
                        await asyncio.sleep(0.01)
                        continue
                    assert answer.status_code == 200, answer.text
                    assert answer.json()["request_id"] == request_id
                    acknowledged.add(request_id)
                if len(acknowledged) >= requests // 2:
                    halfway.set()

    async def look_after() -> None:
        while True:
            deployment.supervisor.look()
            await asyncio.sleep(0.02)

    async def disturb() -> None:
        await halfway.wait()
        at_half()

    looking = asyncio.create_task(look_after())
    await asyncio.gather(disturb(), *(client(i) for i in range(clients)))
    looking.cancel()
    return sent


def assert_recorded_once(deployment: Deployment, sent) -> None:
    ids = deployment.recorded()["prediction_id"].to_list()
    assert sorted(ids) == sorted(f"{request_id}:{row}" for request_id in sent for row in range(2))


def test_every_acknowledged_prediction_is_recorded_once_though_a_worker_is_killed(deploy):
    deployment = deploy(workers=2)
    before = deployment.supervisor.pids()
    sent = asyncio.run(load(deployment, 300, 6, lambda: os.kill(before["worker-0"], signal.SIGKILL)))
    assert_recorded_once(deployment, sent)
    deployment.acknowledge(1)
    after = deployment.supervisor.pids()
    assert after["worker-0"] != before["worker-0"]
    assert after["worker-1"] == before["worker-1"]
    assert deployment.beat("worker-0").pid == after["worker-0"]


def test_a_hung_worker_is_replaced_and_nothing_acknowledged_is_lost(deploy):
    deployment = deploy(workers=2, patience=Patience(hung_after_s=1.0))
    before = deployment.supervisor.pids()
    sent = asyncio.run(load(deployment, 120, 4, lambda: os.kill(before["worker-1"], signal.SIGSTOP)))
    assert_recorded_once(deployment, sent)
    deployment.until(lambda: deployment.supervisor.pids().get("worker-1", before["worker-1"]) != before["worker-1"])
    deployment.acknowledge(1)


def test_no_request_fails_while_versions_are_switched(deploy):
    deployment = deploy(workers=2)
    sent = asyncio.run(load(deployment, 2000, 4, lambda: deployment.route("2")))
    assert set(sent.values()) == {1}
    deployment.acknowledge(2)
    assert set(deployment.recorded()["version"]) == {"1", "2"}


def test_a_worker_goes_on_when_its_routes_are_gone_or_damaged(deploy):
    deployment = deploy()
    good = (deployment.root / "routes.json").read_bytes()
    for damage in (lambda: (deployment.root / "routes.json").unlink(), lambda: deployment.write_routes(good[:-9])):
        damage()
        deployment.until(lambda: "routes.json" in deployment.beat().error)
        assert deployment.predict("q").json()["predictions"][0]["version"] == "1"
        deployment.write_routes(good)
        deployment.until(lambda: not deployment.beat().error)
    deployment.acknowledge(deployment.route("2"))
    assert deployment.predict("r").json()["predictions"][0]["version"] == "2"


def test_a_tampered_artifact_is_not_served_and_is_once_it_is_restored(deploy):
    deployment = deploy()
    model = deployment.root / "artifacts" / "2" / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    generation = deployment.route("2")
    deployment.until(lambda: deployment.beat().held)
    assert deployment.beat().held["flights"].startswith("Tampered")
    assert await_generation(deployment.run_dir, generation, deployment.names, deadline_s=0.0) == ["worker-0"]
    assert deployment.predict("q").json()["predictions"][0]["version"] == "1"
    model.write_bytes(good)
    deployment.acknowledge(generation)
    assert deployment.predict("r").json()["predictions"][0]["version"] == "2"


def test_a_worker_told_to_stop_answers_what_it_accepted_and_seals_its_segments(deploy, caplog):
    deployment = deploy()
    pid = deployment.supervisor.pids()["worker-0"]
    sent = asyncio.run(load(deployment, 160, 4, lambda: os.kill(pid, signal.SIGTERM)))
    assert_recorded_once(deployment, sent)
    deployment.until(lambda: deployment.supervisor.pids().get("worker-0", pid) != pid)
    assert "worker-0 ended with code 0" in caplog.text
    deployment.supervisor.end()
    stats = FileLake(deployment.root / "lake", MemoryManifest()).stats()
    assert stats.segments_open == 0
    assert stats.segments_sealed >= 1


@pytest.mark.parametrize("record", ["disk", "memory"])
def test_each_durability_records_what_is_answered(deploy, record):
    deployment = deploy()
    deployment.acknowledge(deployment.route("1", record=record))
    assert deployment.predict("q").status_code == 200
    deployment.until(lambda: not deployment.recorded().is_empty())
    assert deployment.recorded()["prediction_id"].to_list() == ["q:0"]


def test_the_answer_is_the_models_and_the_record_repeats_it(deploy):
    deployment = deploy()
    answer = deployment.predict("q").json()["predictions"][0]
    [recorded] = deployment.recorded().to_dicts()
    assert recorded["out.probability"] == answer["probability"]
    assert 0 < answer["probability"] < 1
    assert msgspec.structs.asdict(deployment.beat())["recorded"] in (0, 1)  # as of the last beat
