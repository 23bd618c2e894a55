"""Two systems in one state: apart in every respect, and one that is broken does not stop the other."""

import pytest

from holdfast.core.records import Version

pytestmark = pytest.mark.slow


def test_two_systems_share_a_state_and_nothing_else(tools, tmp_path):
    files = []
    for seed, name in ((7, "orders"), (8, "returns")):
        tools.write_feeds(tmp_path / name, seed)
        files.append(tools.write_file(tmp_path / name, name))
    (tmp_path / "returns" / "ends.parquet").rename(tmp_path / "returns" / "later.parquet")
    up = tools.up(tmp_path / "state", *files)
    assert up.answers("orders")["predictions"][0]["version"] == "1"
    assert "ends" in tools.until(lambda: up.status(1)["error"], "what is wrong")
    assert up.status(0)["error"] == ""
    assert up.predict("returns").status_code == 503

    (tmp_path / "returns" / "later.parquet").rename(tmp_path / "returns" / "ends.parquet")
    tools.holdfast("train", files[1], "--state", up.state)
    answer = up.answers("returns")["predictions"][0]
    assert tools.json("why", answer["prediction_id"], "--state", up.state)["system"] == "returns"
    assert {version.system for version in tools.records(up.state, Version)} == {"orders", "returns"}
    ambiguous = tools.holdfast("models", "1", "--state", up.state, expect=1).stderr
    assert "is in several systems (orders, returns)" in ambiguous
    which = tools.holdfast("rollback", "--state", up.state, expect=1).stderr
    assert "--system orders | returns" in which
