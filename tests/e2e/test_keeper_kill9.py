"""kill -9 of the keeper, again and again at different moments: the loop ends where it would have ended."""

import pytest

from holdfast.core.records import Release, Run, Version

pytestmark = pytest.mark.slow


def test_a_killed_keeper_is_taken_up_where_it_was(tools, tmp_path, trained):
    tools.write_feeds(tmp_path)
    up = tools.up(tmp_path / "state", tools.write_file(tmp_path))

    def runs(state: str) -> list[Run]:
        return [run for run in tools.records(up.state, Run) if run.state == state]

    tools.until(lambda: runs("running"), "a training under way")
    up.kill_keeper()  # in the middle of a training, whose process dies with it
    tools.until(lambda: runs("failed") and runs("running"), "the training taken up again")
    up.kill_keeper()  # and once more; the next one is allowed to end
    tools.until(lambda: runs("succeeded"), "the training")
    up.kill_keeper()  # between training and release, or right after it
    assert up.answers()["predictions"][0]["version"] == "1"
    up.kill_keeper()  # with a version live
    tools.until(up.console_answers, "the console")

    assert len(runs("succeeded")) == 1
    assert {run.message for run in runs("failed")} == {"the process that ran it died; it is tried again"}
    assert [(release.id, release.state) for release in tools.records(up.state, Release)] == [("rel-1", "live")]
    [version] = tools.records(up.state, Version)
    undisturbed = tools.records(trained / "state", Version)[1]
    assert version.artifact == undisturbed.artifact
    tools.holdfast("audit", "verify", "--state", up.state)
