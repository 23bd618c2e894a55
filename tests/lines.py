"""What a process says on standard output, awaited no longer than a deadline: one that hangs must not hang the suite."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Thread

DEADLINE_S = 120.0
"""Ample for a busy machine; only a process that hangs takes as long."""
GONE_S = 10.0
"""How long a process that was killed, or has closed its output, may take to be gone."""
SHOWN = 3000
"""So many of the last characters of a log or of the output are shown."""


def next_line(
    process: "subprocess.Popen[str]",
    what: str,
    *,
    said: str = "",
    log: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> str:
    """The next line. AssertionError where none comes in time or the process has ended: it says what was awaited and
    what came last, of the output (`said` is what was read before) and of the log. Who hangs is killed."""
    assert process.stdout is not None
    line = _in_time(process, process.stdout.readline, what, said, log, deadline_s)
    if not line:
        raise AssertionError(_told(f"it ended with {process.wait(GONE_S)} instead of {what}", said, log))
    return line


def rest(process: "subprocess.Popen[str]", what: str, *, deadline_s: float = DEADLINE_S) -> list[str]:
    """All lines until the process closes its output; the last one may be torn. AssertionError as of `next_line`."""
    assert process.stdout is not None
    return _in_time(process, process.stdout.read, what, "", None, deadline_s).splitlines(keepends=True)


def _in_time(
    process: "subprocess.Popen[str]", read: Callable[[], str], what: str, said: str, log: Path | None, deadline_s: float
) -> str:
    """Read in a thread: what is buffered already, no selector sees."""
    found: list[str] = []
    reader = Thread(target=lambda: found.append(read()), daemon=True)
    reader.start()
    reader.join(deadline_s)
    if not reader.is_alive():
        return found[0]
    process.kill()
    process.wait(GONE_S)
    reader.join(GONE_S)  # with the process gone it gives what was said of a line
    raise AssertionError(_told(f"not within {deadline_s:g} s: {what}", said + "".join(found), log))


def _told(problem: str, said: str, log: Path | None) -> str:
    shown = [problem, f"its last output: {said[-SHOWN:] or 'none'}"]
    if log is not None and log.exists():
        shown.append(f"its log: {log.read_text()[-SHOWN:] or 'empty'}")
    return "\n".join(shown)
