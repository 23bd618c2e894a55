"""A team keeps its own server: `holdfast up` is told of its answers, as they are, and says when they go wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from holdfast.core.records import Incident

pytestmark = pytest.mark.slow

DAYS, ROWS = 60, 40
DAY = timedelta(days=1)
FILE = """\
system: loans
data:
  feeds:
    answers: {event_at: at, key: id}
    repaid: {known_at: repaid_at}
  rows: answers
  key: loan
  label: {feed: repaid, column: repaid, known_at: repaid_at, mature_after: 1d}
  columns: {amount: number, kind: category}
predictions: {task: classification, score: proba, reference: {first: 50d}, complete_after: 0s}
monitors:
  - {check: drift}
  - {check: quality, metric: brier}
false_alarms: 3 per month
responses:
  - {on: any, do: notify}
"""


class Server:
    """Somebody's model server, and the logger beside it."""

    def __init__(self, url: str, token: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)
        self.token = token
        rng = np.random.default_rng(5)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.days = [today - (DAYS - n) * DAY for n in range(DAYS)]
        self.amount = rng.normal(20_000, 5_000, (DAYS, ROWS))
        self.amount[-1] /= 1000  # the fault: yesterday, amounts came in thousands
        self.kind = rng.choice(["car", "boat"], (DAYS, ROWS))
        self.proba = 1 / (1 + np.exp(-(rng.normal(0, 1.2, (DAYS, ROWS)))))
        self.repaid = rng.random((DAYS, ROWS)) < self.proba
        self.repaid[-9:] = ~self.repaid[-9:]  # and the model has been wrong since nine days

    def at(self, day: int, row: int) -> datetime:
        return self.days[day] + row * timedelta(minutes=30)

    def inputs(self, day: int, row: int) -> dict[str, Any]:
        return {"amount": float(self.amount[day, row]), "kind": str(self.kind[day, row])}

    def post(self, path: str, body: Any) -> None:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text

    def deliver(self, day: int) -> None:
        """A day of answers at a time, as a job of the team does."""
        predictions = [
            {
                "id": f"{day}-{row}",
                "key": f"loan {day} {row}",
                "inputs": self.inputs(day, row),
                "score": float(self.proba[day, row]),
                "version": "7",
                "at": self.at(day, row).isoformat(),
            }
            for row in range(ROWS)
        ]
        self.post("/predictions/loans", {"predictions": predictions})

    def log(self, day: int, kind: str) -> None:
        """One answered request at a time, as the logger of KServe does: binary mode, its token in the URL."""
        for row in range(ROWS):
            if kind == "request":
                tensors = {"amount": "FP64", "kind": "BYTES"} | {"loan": "BYTES"}
                values = self.inputs(day, row) | {"loan": f"loan {day} {row}"}
                body: Any = {
                    "inputs": [
                        {"name": name, "shape": [1], "datatype": tensors[name], "data": [values[name]]}
                        for name in tensors
                    ]
                }
            else:
                output = {"name": "proba", "shape": [1], "datatype": "FP64", "data": [float(self.proba[day, row])]}
                body = {"model_name": "loans", "model_version": "7", "outputs": [output]}
            headers = {
                "Ce-Specversion": "1.0",
                "Ce-Id": f"uuid-{day}-{row}",
                "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
                "Ce-Source": "http://localhost:9081/",
                "Ce-Time": self.at(day, row).isoformat().replace("+00:00", "Z"),
                "Ce-Recordedtime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "Ce-Inferenceservicename": "loans",
                "Ce-Namespace": "default",
                "Ce-Component": "predictor",
                "Ce-Endpoint": "",
                "Ce-Metadata": "{}",
                "Content-Type": "application/json",
            }
            sent = self.client.post("/events/loans", json=body, headers=headers, auth=("holdfast", self.token))
            assert sent.status_code == 200, sent.text

    def tell_labels(self) -> None:
        labels = [
            {
                "key": f"loan {day} {row}",
                "label": bool(self.repaid[day, row]),
                "known_at": (self.at(day, row) + timedelta(hours=2)).isoformat(),
            }
            for day in range(DAYS)
            for row in range(ROWS)
        ]
        self.post("/labels/loans", {"labels": labels})


def test_answers_of_another_server_are_watched_and_its_faults_are_told(tools, tmp_path):
    file = tmp_path / "holdfast.yaml"
    file.write_text(FILE)
    up = tools.up(tmp_path / "state", file)
    assert "loans: served elsewhere, watched here" in up.said
    tools.until(lambda: up.serving("worker-1"), "a worker")
    server = Server(up.url, up.token)

    def incident(check: str) -> Incident | None:
        return next((each for each in tools.records(up.state, Incident) if each.check == check), None)

    for day in range(DAYS - 3):
        server.deliver(day)
    for day in range(DAYS - 3, DAYS):  # of the last days the logger tells, responses overtaking requests
        server.log(day, "response")
        server.log(day, "request")
    drift = tools.until(lambda: incident("drift"), "the shifted amounts\n" + up.log.read_text(), 90)
    assert drift.calibrated
    assert drift.first.reading.subject == "amount"
    assert incident("quality") is None

    server.tell_labels()
    quality = tools.until(lambda: incident("quality"), "the wrong answers\n" + up.log.read_text(), 90)
    assert quality.calibrated

    view = up.status()
    assert (view["live"], view["elsewhere"], view["unpaired"]) == ("7", True, 0)
    assert [day["rows"] for day in view["days"][-20:]] == [ROWS] * 20
    explained = tools.json("why", "uuid-59-3", "--state", up.state)
    assert (explained["stage"], explained["version"], explained["key"]) == ("elsewhere", "7", "loan 59 3")
    assert explained["output"] == pytest.approx(server.proba[59, 3])
    said = tools.holdfast("replay", "uuid-59-3", "--state", up.state, expect=8).stderr
    assert "answered elsewhere" in said
    assert "served elsewhere" in tools.holdfast("train", file, "--state", up.state, expect=8).stderr

    with httpx.Client(base_url=up.url) as stranger:
        refused = stranger.post("/predictions/loans", json={"predictions": []}, headers={"authorization": "Bearer no"})
        assert refused.status_code == 401
    up.kill_keeper()
    server.deliver(DAYS - 4)
    server.client.close()
    tools.until(lambda: up.console_answers(), "the console again")
    assert [day["rows"] for day in up.status()["days"][-20:]] == [ROWS] * 20, "what is told again counts once"
