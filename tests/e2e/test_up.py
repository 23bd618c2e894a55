"""`holdfast up` with real processes: from data files to recorded answers, and what it does when things are missing."""

import os
import shutil
import signal
import time

import httpx
import pytest

pytestmark = pytest.mark.slow


def test_up_trains_releases_answers_records_and_explains(tools, tmp_path):
    tools.write_feeds(tmp_path)
    file = tools.write_file(tmp_path)
    up = tools.up(tmp_path / "state", file)
    assert "orders: no version yet" in up.said
    assert f"console: {up.console}/?token={up.token}" in up.said
    answer = up.answers()["predictions"][0]
    assert answer["version"] == "1"

    explained = tools.json("why", answer["prediction_id"], "--state", up.state)
    assert explained["output"] == answer["probability"]
    assert (explained["version"], explained["run"]) == ("1", "run-1")
    assert {each["name"] for each in explained["files"]} == {"orders.parquet", "ends.parquet"}
    replayed = tools.json("replay", answer["prediction_id"], "--state", up.state)
    assert replayed["agrees"]
    assert replayed["recorded"] == answer["probability"]

    status = tools.json("status", "--state", up.state)
    assert status["is_up"]
    assert status["systems"][0]["live"] == "1"
    assert sum(day["rows"] for day in status["systems"][0]["days"]) >= 1

    second = tools.holdfast("up", file, "--state", up.state, "--port", 0, "--console-port", 0, expect=8)
    assert f"is in use by process {up.process.pid}" in second.stderr
    assert up.stop() == 0
    assert not (up.state / "run" / "up.json").exists()


def test_a_restart_serves_at_once_and_lets_nobody_in_without_a_token(tools, deployed):
    tools.up(deployed / "state", deployed / "holdfast.yaml").stop()
    start = time.perf_counter()
    up = tools.up(deployed / "state", deployed / "holdfast.yaml")
    up.answers()
    print(f"from `up` to the first answer: {time.perf_counter() - start:.2f} s")
    assert "hf_" not in up.said

    assert up.predict(token="hf_wrong").status_code == 401
    tools.until(lambda: up.console_answers(), "the console")
    assert up.api("GET", "/api/status", token="hf_wrong").status_code == 401
    assert httpx.get(f"{up.console}/").status_code == 401
    client = tools.holdfast("token", "new", "shop", "--state", up.state).stdout.strip()
    tools.until(lambda: up.predict(token=client).status_code == 200, "a new token")
    assert up.api("POST", "/api/rollback", token=client, why="to see").status_code == 403
    tools.holdfast("token", "revoke", "shop", "--state", up.state)
    tools.until(lambda: up.predict(token=client).status_code == 401, "the end of a token")

    port = up.url.rsplit(":", 1)[1]
    other = deployed.parent / "other"
    taken = tools.holdfast("up", deployed / "holdfast.yaml", "--state", other, "--port", port, expect=8)
    assert f"cannot listen on 127.0.0.1:{port}" in taken.stderr
    assert not (other / "run" / "up.json").exists()


def test_workers_serve_on_without_keeper_and_catalog(tools, deployed):
    up = tools.up(deployed / "state", deployed / "holdfast.yaml")
    up.answers()
    keeper = up.pid("keeper")
    aside = deployed / "aside"
    aside.mkdir()
    for file in up.state.glob("catalog.db*"):
        shutil.move(file, aside / file.name)
    os.kill(keeper, signal.SIGKILL)
    tools.until(lambda: "catalog.db is gone" in up.log.read_text(), "the keeper's word on it")
    assert up.predict().status_code == 200
    os.kill(up.pid("worker-1"), signal.SIGKILL)
    assert up.answers()["predictions"][0]["version"] == "2"

    for file in aside.iterdir():
        shutil.move(file, up.state / file.name)
    tools.until(lambda: up.console_answers(), "a keeper once the catalog is back")
    assert sum(day["rows"] for day in up.status()["days"]) >= 3


def test_a_truncated_file_is_one_message_and_loses_nothing(tools, deployed):
    whole = (deployed / "orders.parquet").read_bytes()
    (deployed / "orders-2.parquet").write_bytes(whole[: len(whole) // 2])
    state, file = deployed / "state", deployed / "holdfast.yaml"
    [said] = tools.holdfast("ingest", file, "--state", state, expect=3).stderr.splitlines()
    assert "feed 'orders'" in said
    assert "orders-2.parquet" in said
    up = tools.up(state, file)
    up.answers()
    tools.until(lambda: up.console_answers() and up.status()["error"], "the keeper's word on it")
    assert "orders-2.parquet" in up.status()["error"]
    assert [feed["rows"] for feed in up.status()["feeds"]] == [2400, 2400]
    (deployed / "orders-2.parquet").write_bytes(whole)
    taken = tools.json("ingest", file, "--state", state)
    assert taken["feeds"]["orders"]["rows_kept"] == 2400


def test_a_wrong_system_file_ends_up_with_its_line(tools, tmp_path):
    tools.write_feeds(tmp_path)
    file = tools.write_file(tmp_path)
    file.write_text(file.read_text().replace("check: quality", "check: qualty"))
    ports = ("--port", 0, "--console-port", 0)
    said = tools.holdfast("up", file, "--state", tmp_path / "state", *ports, expect=2)
    assert "did you mean 'quality'?" in said.stderr
    assert f"{file}:13 " in said.stderr
