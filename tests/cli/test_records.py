"""The commands that show what is on record, called in this process on a small trained state."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from holdfast.cli.app import main
from holdfast.cli.output import plot
from holdfast.cli.why import changed
from holdfast.core.clock import SystemClock
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.records import Incident, Mark
from holdfast.core.specfile import read_spec
from holdfast.presence import write_presence
from holdfast.serve.heartbeat import Heartbeat, write_heartbeat
from holdfast.state import open_state, put_in_force

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs `holdfast ARGUMENTS`; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def made(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["holdfast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return made


@pytest.fixture
def state(trained: Path) -> Path:
    """The trained state, for looking only."""
    return trained / "state"


def open_incident(state: Path) -> None:
    now = SystemClock().now()
    reading = Reading(name="psi", value=0.4, note="12.0% lie outside what the reference had")
    bad = Verdict(grade=Grade.FAIL, check="drift", reading=reading, why="load moved by 0.4")
    one = Incident(
        system="orders", id="inc-1", cause="drift:orders", check="drift", subject="load", opened_at=now, last_at=now,
        first=bad, last=bad,
    )  # fmt: skip
    opened = open_state(state)
    with opened.catalog.begin() as tx:
        tx.put(one)
    opened.close()


@pytest.mark.slow
def test_models_go_back_to_the_files_they_came_from(call: Call, state: Path) -> None:
    code, out, _ = call("models", "--state", state)
    assert code == 0
    assert [line.split()[1:3] for line in out.splitlines()[1:]] == [["2", "live"], ["1", "retired"]]
    _, out, _ = call("models", "1", "--state", state)
    assert "the signature holds" in out
    assert "orders.parquet" in out
    assert "parity: onnx" in out
    _, out, _ = call("models", "1", "--state", state, "--json")
    found = json.loads(out)
    assert found["signature"] == "holds"
    assert found["snapshot"]["files"][0]["feed"] == "orders"


@pytest.mark.slow
def test_a_run_shows_folds_and_baselines(call: Call, state: Path) -> None:
    _, out, _ = call("runs", "run-2", "--state", state)
    assert "trivial" in out
    assert "fold 1" in out
    assert "l2=1.0" in out
    _, out, _ = call("runs", "--state", state, "--json")
    assert [run["id"] for run in json.loads(out)] == ["run-2", "run-1"]


@pytest.mark.slow
def test_a_release_shows_its_gates_and_history(call: Call, state: Path) -> None:
    _, out, _ = call("releases", "rel-2", "--state", state)
    assert "quality.roc_auc" in out
    assert "gates passed" in out
    _, out, _ = call("releases", "--state", state)
    assert out.splitlines()[1].split()[1:3] == ["rel-2", "live"]


@pytest.mark.slow
def test_near_misses_are_named(call: Call, state: Path) -> None:
    assert call("runs", "run-22", "--state", state)[2] == "error: no run 'run-22'; did you mean 'run-2'?\n"
    assert (
        call("status", "--system", "order", "--state", state)[2] == "error: no system 'order'; did you mean 'orders'?\n"
    )
    code, _, err = call("why", "nothing", "--state", state)
    advice = "`holdfast why` takes a prediction_id from an answer"
    assert (code, err) == (1, f"error: no prediction 'nothing'; {advice}\n")


@pytest.mark.slow
def test_status_without_anything_up_says_so(call: Call, state: Path) -> None:
    _, out, _ = call("status", "--state", state)
    assert "nothing is up" in out
    assert "orders: version 2 live since" in out
    assert "no open incident" in out
    _, out, _ = call("status", "--state", state, "--json")
    assert json.loads(out)["systems"][0]["feeds"][0]["rows"] == 2400


@pytest.mark.slow
def test_status_says_what_each_monitor_spends_of_the_budget(call: Call, deployed: Path) -> None:
    file = deployed / "holdfast.yaml"
    text = file.read_text(encoding="utf-8") + "  - {check: drift, every: 7d, window: 7d}\n"
    file.write_text(text, encoding="utf-8")
    state, now = deployed / "state", SystemClock().now()
    reading = Reading(name="psi", value=0.1)
    passed = Verdict(grade=Grade.PASS, check="drift", reading=reading, why="p = 0.4", monitor="drift", level=0.02)
    opened = open_state(state)
    put_in_force(opened, read_spec(file), path=file, text=text, now=now, by="test")
    with opened.catalog.begin() as tx:
        tx.put(Mark(system="orders", id="verdict/drift", last_at=now, memory=msgspec.to_builtins(passed)))
    opened.close()
    _, out, _ = call("status", "--state", state)
    assert "of 1 false alarm a month the monitors may spend 0.086:" in out
    budget = [line.split() for line in out.partition("may spend")[2].splitlines()]
    assert ["drift", "4.29", "0.02", "0.086"] in budget
    assert ["freshness", "30", "-", "-", "judged", "by", "its", "own", "limits"] in budget
    [view] = json.loads(call("status", "--state", state, "--json")[1])["systems"]
    assert [each["share"]["level"] for each in view["monitors"]] == [None, 0.02]


@pytest.mark.slow
def test_why_lists_every_input_and_marks_those_outside_what_training_saw(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    rows = pl.read_parquet(deployed / "orders.parquet").head(1).with_columns(load=pl.lit(1e6))
    rows.write_parquet(deployed / "far.parquet")
    given = ("--in", deployed / "far.parquet", "--out", deployed / "s.csv", "--record", "--state", state)
    code, out, err = call("predict", *given, "--json")
    assert code == 0, err
    asked = f"{json.loads(out)['request_id']}:0"
    found = json.loads(call("why", asked, "--state", state, "--json")[1])
    marks = {each["column"]: each["is_outside"] for each in found["influences"]}
    assert set(marks) == set(read_spec(deployed / "holdfast.yaml").data.columns)
    assert (marks["load"], sum(marks.values())) == (True, found["outside"])
    _, out, _ = call("why", asked, "--state", state)
    lines = {line.split()[0]: line for line in out.partition("\n\n")[2].splitlines()[1:]}
    assert set(lines) == set(marks)
    assert [name for name, line in lines.items() if "outside what training saw" in line] == [
        name for name, is_outside in marks.items() if is_outside
    ]


@pytest.mark.parametrize(
    ("change", "shown"), [(None, "-"), (0.0, "0"), (0.25, "+0.2500"), (-0.0001, "-0.0001"), (1.5e-7, "+1.5e-07")]
)
def test_a_change_that_is_there_is_never_shown_as_none(change: float | None, shown: str) -> None:
    assert changed(change) == shown


def put_silent_in_force(root: Path) -> None:
    """The system again, by a file that says that nothing is recorded."""
    file = root / "holdfast.yaml"
    text = f"{file.read_text(encoding='utf-8')}\nserve:\n  record: none\n"
    file.write_text(text, encoding="utf-8")
    opened = open_state(root / "state")
    put_in_force(opened, read_spec(file), path=file, text=text, now=SystemClock().now(), by="test")
    opened.close()


@pytest.mark.slow
def test_a_system_that_records_nothing_is_said_to(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    assert "nothing is recorded" not in call("status", "--state", state)[1]
    put_silent_in_force(deployed)
    for command in ("why", "replay"):
        code, _, err = call(command, "abc", "--state", state)
        assert (code, "this system records nothing (serve.record: none)" in err) == (1, True), err
    assert "nothing is recorded (serve.record: none)" in call("status", "--state", state)[1]
    assert json.loads(call("status", "--state", state, "--json")[1])["systems"][0]["is_recorded"] is False


@pytest.mark.slow
def test_status_says_where_it_serves_and_no_sign_of_life_is_from_the_future(call: Call, deployed: Path) -> None:
    run = deployed / "state" / "run"
    run.mkdir(exist_ok=True)
    write_presence(run, url="http://h:1", console="http://h:2", workers=("worker-1",))
    assert "serving at http://h:1, console at" in call("status", "--state", deployed / "state")[1]
    write_presence(run, url="http://h:1", console="http://h:2", workers=("worker-1",), grpc="h:3")
    later = (SystemClock().now() + timedelta(hours=1)).isoformat()
    write_heartbeat(run, "worker-1", Heartbeat(pid=1, generation=1, at=later))
    out = call("status", "--state", deployed / "state")[1]
    assert "serving at http://h:1, gRPC at h:3, console at http://h:2" in out
    assert " 0.0 s ago" in out
    assert "-" not in next(line for line in out.splitlines() if line.startswith("worker-1")).removeprefix("worker-1")


@pytest.mark.slow
def test_there_is_nothing_to_go_back_to_from_the_first_version(call: Call, deployed: Path) -> None:
    assert call("rollback", "--state", deployed / "state")[0] == 0
    code, _, err = call("rollback", "--state", deployed / "state")
    assert (code, err) == (1, "error: version 1 is the first live version; there is nothing to go back to\n")


def test_a_state_without_a_system_says_how_one_comes_into_it(call: Call, tmp_path: Path) -> None:
    open_state(tmp_path / "state").close()
    code, _, err = call("rollback", "--state", tmp_path / "state")
    advice = "`holdfast up FILE` or `holdfast train FILE` puts one in"
    assert (code, err) == (1, f"error: this state holds no system; {advice}\n")


def test_without_a_state_it_says_how_to_begin(call: Call, tmp_path: Path) -> None:
    code, out, err = call("status")
    assert (code, out) == (8, "")
    assert err == "error: there is no state in .holdfast; begin with `holdfast up FILE`, or name another --state\n"
    assert not (tmp_path / ".holdfast").exists()


@pytest.mark.slow
def test_an_incident_is_listed_shown_and_acknowledged(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    assert call("incidents", "--state", state)[1] == "no open incidents; --all shows closed ones\n"
    open_incident(state)
    assert "load moved by 0.4" in call("incidents", "--state", state)[1]
    shown = call("incidents", "inc-1", "--state", state)[1]
    assert "load moved by 0.4; 12.0% lie outside what the reference had" in " ".join(shown.split())
    assert "seen 1 time," in shown
    code, _, err = call("incidents", "--ack", "--state", state)
    assert (code, "say which incident" in err) == (1, True)
    _, out, _ = call("incidents", "inc-1", "--ack", "--state", state, "--json")
    assert json.loads(out)["state"] == "acknowledged"
    _, out, _ = call("audit", "log", "--state", state, "--json")
    assert json.loads(out)[0]["action"] == "incident acknowledged"


@pytest.mark.slow
def test_a_rollback_without_workers_says_who_will_serve_it(call: Call, deployed: Path) -> None:
    code, out, _ = call("rollback", "--state", deployed / "state")
    assert code == 0
    assert "orders: version 1 is live" in out
    assert "`holdfast up` will serve it" in out


@pytest.mark.slow
def test_tokens_are_made_listed_and_revoked(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    assert call("token", "list", "--state", state)[1] == "no tokens; the first `holdfast up` makes an admin token\n"
    code, secret, _ = call("token", "new", "ops", "--role", "admin", "--state", state)
    assert code == 0
    assert secret.startswith("hf_")
    assert secret.strip().encode() not in b"".join(path.read_bytes() for path in state.glob("*.*"))
    assert call("token", "new", "ops", "--state", state)[0] == 8
    code, _, err = call("token", "revoke", "ops", "--state", state)
    assert (code, "last admin token" in err) == (8, True)
    assert "no role 'boss'" in call("token", "new", "x", "--role", "boss", "--state", state)[2]
    call("token", "new", "shop", "--state", state)
    _, out, _ = call("token", "list", "--state", state, "--json")
    assert [(token["name"], token["role"]) for token in json.loads(out)] == [("ops", "admin"), ("shop", "client")]
    assert call("token", "revoke", "shp", "--state", state)[2] == "error: no active token 'shp'; did you mean 'shop'?\n"
    assert call("token", "revoke", "shop", "--state", state)[0] == 0


@pytest.mark.slow
def test_a_changed_audit_log_is_told(call: Call, deployed: Path) -> None:
    state = deployed / "state"
    _, out, _ = call("audit", "verify", "--state", state, "--json")
    head = json.loads(out)["head"]
    assert call("audit", "verify", "--head", head, "--state", state)[0] == 0
    code, _, err = call("audit", "verify", "--head", "0" * 63 + "1", "--state", state)
    assert (code, "cut off or rewritten" in err) == (5, True)


def test_a_plot_is_thinned_to_its_width() -> None:
    assert plot([1.0] * 5) == "▁▁▁▁▁"
    assert plot([]) == ""
    assert len(plot([float(i) for i in range(1000)], width=40)) == 40


@pytest.mark.slow
def test_a_release_is_planned_by_the_days_held_out(call: Call, state: Path) -> None:
    code, out, _ = call("release", "plan", "--state", state, "--json", "--margin", "0.2", "--within", "40d")
    assert code == 0
    found = json.loads(out)
    assert (found["system"], found["margin"], found["within_days"]) == ("orders", 0.2, 40)
    assert found["as_good"]["promoted"] + found["as_good"]["refused"] + found["as_good"]["undecided"] == pytest.approx(
        1
    )
    assert "versions 2 and 1 on the" in found["based_on"]
    code, out, _ = call("release", "plan", "--state", state)
    assert "as good as what is live" in out
    assert "labels 1 day\n" in out
    assert "days held out from version 2," in out


@pytest.mark.slow
@pytest.mark.parametrize("within", ["3", "soon"])
def test_a_plan_within_no_duration_is_refused_with_an_example(call: Call, state: Path, within: str) -> None:
    code, out, err = call("release", "plan", "--state", state, "--within", within)
    assert (code, out) == (2, "")
    assert "--within 28d" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_plan_in_which_no_label_comes_says_what_they_take(call: Call, state: Path) -> None:
    code, out, _ = call("release", "plan", "--state", state, "--within", "1h")
    assert code == 0
    assert "cannot be decided within 0.04167 days: the labels of the first day are complete after 2 days" in out
    assert "none" not in out
