"""Debian's Prometheus scrapes two workers behind one port, and knows the alert rules of the documents."""

import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.answerer import Answerer
from holdfast.core.clock import ManualClock
from holdfast.observe.metricfamilies import FAMILIES
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsfiles import publish
from holdfast.observe.metricspage import CONTENT_TYPE, metrics_page
from holdfast.testing.serving import NOW, SIGNATURE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed"),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed"),
]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "prometheus.md"
BY = Answerer(system="flights", version="1", stage="live", release="r1", signature=SIGNATURE, signature_hash="x")
SCENES = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'holdfast_requests_total{system="flights",status="200"}', values: '0+980x20'}
      - {series: 'holdfast_requests_total{system="flights",status="500"}', values: '0+20x20'}
      - {series: 'holdfast_requests_total{system="weather",status="200"}', values: '0+1000x20'}
      - {series: 'holdfast_lost_rows_total{instance="a",worker="worker-0"}', values: '0x10 0+5x10'}
      - {series: 'holdfast_shed_rows_total{instance="a",worker="worker-0"}', values: '0x20'}
      - {series: 'holdfast_routes_generation{instance="a",worker="worker-0"}', values: '4x20'}
      - {series: 'holdfast_routes_generation{instance="a",worker="worker-1"}', values: '4x9 3x11'}
      - {series: 'process_start_time_seconds{job="holdfast",instance="a",worker="worker-1"}', values: '1 2 3 4 4x16'}
      - {series: 'holdfast_record_lag_seconds{instance="a",worker="worker-0"}', values: '0.3x10 0.75x9'}
    alert_rule_test:
      - {eval_time: 11m, alertname: HoldfastRecordLag, exp_alerts: []}
      - eval_time: 13m
        alertname: HoldfastRecordLag
        exp_alerts:
          - exp_labels: {severity: warn, instance: a}
            exp_annotations: {summary: 'Rows wait 750ms to be recorded. Is the disk slow?'}
      - eval_time: 15m
        alertname: HoldfastErrors
        exp_alerts:
          - exp_labels: {severity: page, system: flights}
            exp_annotations: {summary: 'flights fails 2% of its requests.'}
      - {eval_time: 9m, alertname: HoldfastNotRecorded, exp_alerts: []}
      - eval_time: 20m
        alertname: HoldfastNotRecorded
        exp_alerts:
          - exp_labels: {severity: page, instance: a}
            exp_annotations: {summary: '25 rows were not recorded in five minutes. Is the disk full?'}
      - {eval_time: 9m, alertname: HoldfastWorkersDisagree, exp_alerts: []}
      - eval_time: 15m
        alertname: HoldfastWorkersDisagree
        exp_alerts:
          - exp_labels: {severity: warn, instance: a}
            exp_annotations: {summary: 'A worker of a follows older routes than another.'}
      - eval_time: 10m
        alertname: HoldfastWorkerRestarts
        exp_alerts:
          - exp_labels: {severity: warn, job: holdfast, instance: a, worker: worker-1}
            exp_annotations: {summary: 'worker-1 was replaced 3 times in a quarter of an hour.'}
      - {eval_time: 15m, alertname: HoldfastSlow, exp_alerts: []}
"""


def block(begin: str) -> str:
    """The block of YAML of the page that begins so."""
    found = re.search(rf"```yaml\n({begin}:.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def promtool(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)
    return found


class Serving(http.server.ThreadingHTTPServer):
    """One port, two workers: each request reaches the other one than the last."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(("127.0.0.1", 0), Scraped)
        self.run_dir = run_dir
        self.workers = [Metrics(f"worker-{place}", ManualClock(NOW)) for place in range(2)]
        self.asked = 0
        self.may_work = threading.Lock()


class Scraped(http.server.BaseHTTPRequestHandler):
    server: Serving

    def do_GET(self) -> None:
        if self.headers["authorization"] != "Bearer hf_secret" or self.path != "/metrics":
            self.send_response(401)
            self.end_headers()
            return
        with self.server.may_work:
            worker = self.server.workers[self.server.asked % 2]
            self.server.asked += 1
            worker.ran(BY, 4, 2, [20.0, 30.0], 200.0, [300.0, 7000.0])
            own = worker.snapshot()
            publish(self.server.run_dir, own)
            page = metrics_page(own, self.server.run_dir)
        self.send_response(200)
        self.send_header("content-type", CONTENT_TYPE.decode())
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("run")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)


@pytest.fixture(scope="module")
def prometheus(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Prometheus with the scrape and the rules of the page, asked by its HTTP API."""
    tmp_path = tmp_path_factory.mktemp("prometheus")
    (tmp_path / "token").write_text("hf_secret")
    (tmp_path / "rules.yml").write_text(block("groups"))
    scrape = block("scrape_configs").replace("127.0.0.1:8080", f"127.0.0.1:{serving.server_port}")
    scrape = scrape.replace("/etc/prometheus/holdfast.token", "token").replace("15s", "100ms")
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_timeout: 100ms, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n{scrape}"
    )
    promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], cwd=tmp_path, stderr=log)

    def asked(path: str) -> Any:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    yield asked
    process.terminate()
    process.wait(30)


def query(asked: Callable[[str], Any], expression: str) -> dict[str, float]:
    """Worker to value."""
    answer = asked("query?" + urllib.parse.urlencode({"query": expression})) or {"result": []}
    return {each["metric"].get("worker", ""): float(each["value"][1]) for each in answer["result"]}


def test_both_workers_are_scraped_through_one_port_without_false_resets(prometheus, serving):
    until(lambda: serving.asked >= 20, "twenty scrapes")
    rows = 'holdfast_rows_total{system="flights"}'
    found = until(lambda: len(query(prometheus, rows)) == 2 and query(prometheus, rows), "both workers")
    assert set(found) == {"worker-0", "worker-1"}
    assert all(value % 4 == 0 and value > 8 for value in found.values())
    assert set(query(prometheus, f"resets({rows}[1m])").values()) == {0.0}
    assert query(prometheus, 'up{job="holdfast"}') == {"": 1.0}
    slow = "histogram_quantile(0.99, sum by (le) (rate(holdfast_request_seconds_bucket[1m])))"
    assert 0.005 < query(prometheus, slow)[""] <= 0.01
    within = 'sum(holdfast_request_seconds_bucket{le="0.005"}) / sum(holdfast_request_seconds_count)'
    assert query(prometheus, within)[""] == pytest.approx(0.5)


def test_the_rules_of_the_page_are_known_to_prometheus_and_all_in_order(prometheus):
    until(lambda: query(prometheus, "up"), "a first scrape")

    def evaluated() -> Any:
        rules = [rule for group in (prometheus("rules") or {"groups": []})["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(evaluated, "evaluated rules")
    assert {rule["health"] for rule in rules} == {"ok"}
    assert len(rules) == block("groups").count("alert:")


def test_alerts_fire_when_they_should_and_not_before(tmp_path):
    (tmp_path / "rules.yml").write_text(block("groups"))
    (tmp_path / "scenes.yml").write_text(SCENES)
    promtool("check", "rules", "rules.yml", cwd=tmp_path)
    promtool("test", "rules", "scenes.yml", cwd=tmp_path)


def test_metrics_that_the_page_names_exist():
    metrics = Metrics("worker-0", ManualClock(NOW))
    metrics.ran(BY, 1, 1, [1.0], 1.0, [1.0])
    shown = set(re.findall(r"^(?:# TYPE )?(\w+)", metrics_page(metrics.snapshot(), None).decode(), re.MULTILINE))
    named = set(re.findall(r"\b((?:holdfast|nv|process)_\w+)", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 10
    assert named <= shown | {family.name for family in FAMILIES}
