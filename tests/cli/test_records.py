"""The commands that show what is on record, called in this process on a small trained state."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli.app import main
from holdfast.cli.output import plot
from holdfast.core.clock import SystemClock
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.records import Incident
from holdfast.state import open_state

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
    bad = Verdict(grade=Grade.FAIL, check="drift", reading=Reading(name="psi", value=0.4), why="load moved by 0.4")
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
    assert (code, err) == (1, "error: no prediction 'nothing'\n")


@pytest.mark.slow
def test_status_without_anything_up_says_so(call: Call, state: Path) -> None:
    _, out, _ = call("status", "--state", state)
    assert "nothing is up" in out
    assert "orders: version 2 live since" in out
    assert "no open incident" in out
    _, out, _ = call("status", "--state", state, "--json")
    assert json.loads(out)["systems"][0]["feeds"][0]["rows"] == 2400


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
