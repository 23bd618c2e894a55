"""`holdfast up` with two workers on one port: every scrape shows both, and their statistics are one."""

import os
import shutil
import signal
import socket
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow


def scraped(up):
    """Worker to rows answered, by one scrape."""
    answer = httpx.get(f"{up.url}/metrics", headers={"authorization": f"Bearer {up.token}"}, timeout=20)
    assert answer.status_code == 200
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    workers = {sample.labels["worker"]: 0.0 for sample in families["holdfast_routes_generation"].samples}
    for sample in families["holdfast_rows"].samples:
        workers[sample.labels["worker"]] += sample.value
    return workers


@pytest.fixture
def up(tools, deployed):
    running = tools.up(deployed / "state", deployed / "holdfast.yaml", workers=2)
    running.answers()

    def are_told() -> bool:  # what a worker counts reaches the other's page a little later
        workers = scraped(running)
        return len(workers) == 2 and sum(workers.values()) > 0

    tools.until(are_told, "both workers and the first answer on a page")
    return running


def test_whichever_worker_is_scraped_all_answers_are_counted(tools, up):
    before = sum(scraped(up).values())
    for _ in range(30):
        assert up.predict().status_code == 200
    tools.until(lambda: sum(scraped(up).values()) == before + 30, "thirty answers on a page")
    seen = scraped(up)
    for _ in range(20):
        page = scraped(up)
        assert {worker: rows for worker, rows in page.items() if rows < seen[worker]} == {}
        seen = page
    stats = httpx.get(f"{up.url}/v2/models/orders/stats", headers={"authorization": f"Bearer {up.token}"}).json()
    [version] = stats["model_stats"]
    assert version["name"] == "orders"
    assert version["inference_stats"]["success"]["count"] == before + 30


def test_metrics_are_for_those_with_a_token(up):
    assert httpx.get(f"{up.url}/metrics").status_code == 401


def test_a_worker_that_was_replaced_counts_from_nothing(tools, up):
    for _ in range(30):
        up.predict()
    busy = max(scraped(up).items(), key=lambda each: each[1])[0]
    os.kill(up.pid(busy), signal.SIGKILL)
    tools.until(lambda: scraped(up).get(busy) == 0, "a new worker of that name")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_scrapes_the_workers(tools, up, tmp_path):
    (tmp_path / "token").write_text(up.token)
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: holdfast\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n"
        f"  authorization: {{credentials_file: token}}\n  static_configs: [{{targets: ['{up.url[7:]}']}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
    process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], cwd=tmp_path)

    def workers():
        url = f"http://127.0.0.1:{port}/api/v1/query"
        try:
            answer = httpx.get(url, params={"query": "holdfast_routes_generation"})
        except httpx.TransportError:
            return None
        if answer.status_code != 200:  # it is still starting
            return None
        found = answer.json()["data"]["result"]
        return {each["metric"]["worker"] for each in found} == set(scraped(up))

    try:
        tools.until(workers, "both workers in Prometheus")
    finally:
        process.terminate()
        process.wait(30)
