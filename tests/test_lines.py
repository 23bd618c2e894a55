"""Lines of a process that are awaited with a deadline."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .lines import next_line, rest

pytestmark = pytest.mark.slow
Start = Callable[[str], "subprocess.Popen[str]"]
HANG = "import signal; signal.pause()"


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def started(program: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-ISc", program]
        processes.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def test_lines_are_given_one_by_one_and_the_rest_at_once(start: Start) -> None:
    process = start("print('one\\ntwo\\nthree\\ntorn', end='')")
    assert next_line(process, "one") == "one\n"
    assert next_line(process, "two") == "two\n"
    assert rest(process, "the end") == ["three\n", "torn"]


def test_a_process_that_hangs_is_killed_and_its_last_words_are_shown(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the port is taken")
    process = start(f"print('ready\\nhalf a l', end='', flush=True); {HANG}")
    said = next_line(process, "ready")
    with pytest.raises(AssertionError) as error:
        next_line(process, "the port", said=said, log=tmp_path / "log", deadline_s=0.05)
    problem, *shown = str(error.value).splitlines()
    assert problem == "not within 0.05 s: the port"
    assert shown == ["its last output: ready", "half a l", "its log: the port is taken"]
    assert process.poll() == -9


def test_a_process_that_does_not_end_is_killed_too(start: Start) -> None:
    process = start(f"print('ready', flush=True); {HANG}")
    assert next_line(process, "ready") == "ready\n"
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: its end\nits last output: none"):
        rest(process, "its end", deadline_s=0.05)
    assert process.poll() == -9


def test_a_process_that_has_ended_is_told_with_its_code(start: Start) -> None:
    with pytest.raises(AssertionError, match="it ended with 3 instead of the port\nits last output: none"):
        next_line(start("raise SystemExit(3)"), "the port")
