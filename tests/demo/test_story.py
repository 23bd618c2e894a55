"""The demonstration's pieces: where it runs, the clock of its commands, what it says. The whole takes minutes."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.core.clock import OFFSET, SystemClock
from holdfast.demo import story
from holdfast.demo.story import Story, free_directory
from holdfast.errors import HoldfastError
from holdfast.testing import refused


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A story whose commands are told instead of run: (story, what was said, commands)."""
    said, ran = [], []

    class Done:
        returncode = 0

    def run(argv, cwd, env, check):
        ran.append((argv[3:], env.get(OFFSET)))
        return Done

    monkeypatch.setattr(story.subprocess, "run", run)
    return Story(tmp_path, said.append), said, ran


def test_the_directory_asked_for_is_taken_when_it_is_free(tmp_path):
    assert free_directory(tmp_path / "demo") == tmp_path / "demo"


def test_a_taken_directory_gets_a_number_and_is_left_alone(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").write_text("a file")
    assert free_directory(tmp_path / "demo") == tmp_path / "demo-3"
    assert (tmp_path / "demo-2").read_text() == "a file"


def test_a_relative_directory_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_directory(Path("demo")) == tmp_path / "demo"


def test_a_hundred_taken_directories_are_refused(tmp_path):
    for n in range(1, 100):
        (tmp_path / ("demo" if n == 1 else f"demo-{n}")).mkdir()
    with refused(HoldfastError, "--directory"):
        free_directory(tmp_path / "demo")


def test_a_command_at_a_time_gets_a_clock_that_says_so(monkeypatch):
    at = datetime(2013, 4, 1, tzinfo=UTC)
    moved = story._at(at)
    monkeypatch.setenv(OFFSET, moved[OFFSET])
    assert abs((SystemClock().now() - at).total_seconds()) < 5
    assert OFFSET not in story._at(None)
    assert abs(float(story._at(at)[OFFSET]) - float(moved[OFFSET])) < 5  # a moved clock is not moved again


def test_training_and_backtest_are_the_commands_that_a_user_would_type(told, tmp_path):
    one, said, ran = told
    one.train()
    one.backtest(None)
    one.backtest(tmp_path / "out.json")
    assert ran[0][0] == ["train", "holdfast.yaml", "--state", ".holdfast"]
    assert ran[0][1] is not None
    days = ["--start", "2013-04-01", "--end", "2014-01-01", "--faults", "faults.yaml", "--json"]
    assert ran[1] == (["backtest", "holdfast.yaml", *days, "report.json"], None)
    assert ran[2][0][-1] == str(tmp_path / "out.json")
    assert "$ holdfast train holdfast.yaml --state .holdfast   (with the clock at 2013-04-01)" in said


def test_a_command_that_fails_ends_the_story(tmp_path):
    one = Story(tmp_path, lambda text: None)
    with refused(HoldfastError, "`holdfast nonsense` ended with code 2"):
        one._run("nonsense")


def test_up_is_ended_when_the_story_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(story.sys, "executable", sys.executable)
    one = Story(tmp_path, lambda text: None)
    monkeypatch.setattr(story.subprocess, "Popen", _sleeper(story.subprocess.Popen))
    with refused(HoldfastError, "lost"), one._up({}) as up:
        assert up.poll() is None
        raise HoldfastError("lost")
    assert up.returncode is not None
    up.stdout.close()


def _sleeper(popen):
    def start(argv, **how):
        return popen([sys.executable, "-c", "import time; time.sleep(60)"], **how | {"env": None})

    return start


def test_the_end_says_where_everything_is(told, tmp_path):
    one, said, _ = told
    one.end()
    assert str(tmp_path) in said[0]
