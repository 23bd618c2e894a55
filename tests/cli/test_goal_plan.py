"""`holdfast release plan` for a system whose releases a goal decides."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.cli.app import main
from holdfast.cli.release import what_a_day_tells, what_would_do
from holdfast.core.answerer import Answerer
from holdfast.core.clock import SystemClock
from holdfast.core.inputs import read_columns
from holdfast.core.specfile import read_spec
from holdfast.flow.goalplans import GoalForecast, GoalOutlook, ShareOutlook
from holdfast.flow.planning import Spread
from holdfast.flow.registry import get_version
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import State, open_state, put_in_force
from holdfast.testing import micros

Call = Callable[..., tuple[int, str, str]]
NEVER = Spread(one_in_ten=None, half=None, nine_in_ten=None)
DECIDE = "decide: {loss: brier, goal: label, prefer: lower, margin: 0.1, within: 42d}"


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
def by_goal(deployed: Path) -> State:
    """A state with two versions whose next release a goal decides, with a canary of 50 %."""
    file = deployed / "holdfast.yaml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("steps: [live]", "steps: [canary 50% 7d, live]")
    text = text.replace("decide: {loss: brier, margin: 0.01}", DECIDE)
    file.write_text(text, encoding="utf-8")
    state = open_state(deployed / "state")
    put_in_force(state, read_spec(file), path=file, text=text, now=SystemClock().now(), by="test")
    return state


def answer_days(state: State, days: int, rows: int) -> None:
    """Answers of version 2 on the newest mature days, three in ten of which end late."""
    recorder, rng = Recorder(state.lake.writer), np.random.default_rng(4)
    with state.catalog.read() as tx:
        signature = state.model(get_version(tx, "orders", "2")).signature
    by = Answerer(system="orders", version="2", stage="live", release="", signature=signature, signature_hash="s")
    today = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    for back in range(2, days + 2):
        noon = today - timedelta(days=back) + timedelta(hours=12)
        at = np.full(rows, micros(noon), dtype=np.int64)
        keys = [f"asked-{back}-{i}" for i in range(rows)]
        meta = RowMeta(
            request_id=keys, row=np.zeros(rows, dtype=np.int64), key=list(keys), unit=[None] * rows, event_at=at,
            features_known_at=at, predicted_at=at,
        )  # fmt: skip
        inputs: dict[str, Any] = {"load": np.zeros(rows), "distance": np.zeros(rows), "kind": ["a"] * rows}
        recorder.record_predictions(
            by, read_columns(signature, inputs), np.full(rows, 0.3), meta, queue_us=np.full(rows, 1.0), run_us=1.0
        )
        late, known = (rng.random(rows) < 0.3).astype(float), at + 3_600_000_000
        recorder.record_labels(
            "orders", output="probability", keys=keys, values=late, known_at=known, ingested_at=known,
            revisions=np.zeros(rows, dtype=np.int64),
        )  # fmt: skip


@pytest.mark.slow
def test_a_goal_is_planned_by_the_days_of_live_traffic(call: Call, by_goal: State, deployed: Path) -> None:
    answer_days(by_goal, days=12, rows=200)
    by_goal.close()
    code, out, _ = call("release", "plan", "--state", deployed / "state", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["goal"], found["prefer"], found["share"], found["within_days"]) == ("label", "lower", 0.5, 42)
    assert (found["days"], found["rows"], found["based_on"]) == (12, 2400, "12 days of live traffic")
    assert found["mean"] == pytest.approx(0.3, abs=0.03)
    assert found["as_good"]["promoted"] > 0.9 < found["as_bad"]["refused"]
    assert [each["share"] for each in found["shares"]] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert 0.01 < found["margins"]["half"] < 0.1
    tighter = json.loads(call("release", "plan", "--state", deployed / "state", "--json", "--margin", "0.03")[1])
    assert tighter["as_good"]["days"]["half"] > found["as_good"]["days"]["half"]
    code, out, _ = call("release", "plan", "--state", deployed / "state")
    assert code == 0
    assert "orders: mean label, lower is better, margin 0.1, confidence 0.95, within 42 days" in out
    for said in ("better by the margin, 0.1", "as good as what is live", "worse by twice the margin, 0.2"):
        assert said in out
    assert "50%, as in the file" in out
    assert "smallest margin that lets an equally good candidate pass within 42 days: 1 in 10 of them 0.0" in out
    assert "For half of them it takes" not in out


@pytest.mark.slow
def test_a_goal_without_live_traffic_is_planned_by_the_days_held_out(
    call: Call, by_goal: State, deployed: Path
) -> None:
    by_goal.close()
    code, out, _ = call("release", "plan", "--state", deployed / "state")
    assert code == 0
    assert "days held out from version 2: live traffic has 0 labelled days so far" in out
    assert "with a canary of 50% a version has fewer than 30 rows on all days, so none of them counts" in out
    assert "no margin, no canary and no length up to a year would do: it takes more rows a day" in out


# What it says


def a_forecast(**changes: Any) -> GoalForecast:
    """Of a goal that is rare: nothing is decided in time."""
    outlook = GoalOutlook(days=NEVER, promoted=0.0, refused=0.0, undecided=1.0, effect=0.0)
    facts: dict[str, Any] = {
        "system": "offers", "goal": "label", "prefer": "lower", "margin": 0.004, "confidence": 0.95,
        "within_days": 28.0, "least_days": 7.0, "maturity_days": 1.0, "share": 0.1, "based_on": "test", "days": 60,
        "rows": 60_000, "rows_a_day": 1000.0, "mean": 0.002, "sd_between": 0.001, "sd_within": 0.04, "sd": 0.005,
        "left_out": 0.0, "rarer": 120, "group_days": 15.0, "least_observations": 7, "known": 0.0,
        "as_better": outlook, "as_good": outlook, "as_worse": outlook, "as_bad": outlook, "lengths": NEVER,
        "margins": NEVER, "shares": (a_share(0.1), a_share(0.5)),
    }  # fmt: skip
    return GoalForecast(**{**facts, **changes})


def a_share(share: float, promoted: float = 0.0, length: float | None = None, margin: float | None = None) -> Any:
    lengths, margins = (Spread(one_in_ten=None, half=half, nine_in_ten=None) for half in (length, margin))
    return ShareOutlook(share=share, promoted=promoted, lengths=lengths, margins=margins)


def test_a_rare_goal_is_said_to_be_one() -> None:
    assert what_a_day_tells(a_forecast(rarer=12, left_out=0.25)) == (
        "with a canary of 10% a day's difference of two equal versions has a deviation of 0.005; 25% of days are left "
        "out, as a version has fewer than 30 rows on them; the goal is rare, so about 15 days are put together to one "
        "observation, and an interval needs 7 of these; only 12 rows with a rarer label to plan by, so this is a rough "
        "guess"
    )


def test_where_nothing_would_do_another_label_is_asked_for() -> None:
    assert what_would_do(a_forecast()) == (
        "0% of equally good candidates go live within 28 days; in 100% of releases there are too few observations for "
        "any interval; no margin, no canary and no length up to a year would do: choose a label that is more common"
    )


def test_one_setting_that_would_do_is_said_before_two() -> None:
    shares = (a_share(0.1, length=123.4), a_share(0.5, length=33.0, margin=0.012))
    assert what_would_do(a_forecast(shares=shares)).endswith(
        "For half of them it takes `within: 124d`, or a canary of 50% with `within: 33d`, or a canary of 50% with a "
        "margin of 0.012; or choose a label that is more common"
    )
    enough = (a_share(0.1, margin=0.02), a_share(0.3, promoted=0.6, length=20.0), a_share(0.5, promoted=0.9, length=9))
    assert what_would_do(a_forecast(shares=enough, known=1.0, group_days=1.0)).endswith(
        "0% of equally good candidates go live within 28 days. For half of them it takes a canary of 30%, or a margin "
        "of 0.02"
    )
