"""The demonstration: the whole loop on a year of real flights, told by the commands that a user would type."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast.core.clock import OFFSET, SystemClock, stopwatch_s
from holdfast.demo.faults import FAULTS, ZONE
from holdfast.demo.flights import write_feeds
from holdfast.demo.traffic import Replayed, replay_traffic
from holdfast.errors import HoldfastError

TRAINED_ON = datetime(2013, 4, 1, tzinfo=ZONE)
"""The first training sees January to March."""
ENDS = datetime(2014, 1, 1, tzinfo=ZONE)
REHEARSED = datetime(2013, 12, 28, tzinfo=ZONE)
"""What the live system takes for now; the days from here on are its traffic."""
SYSTEM, FILE, STATE, DATA = "flights", "holdfast.yaml", ".holdfast", "data"

Say = Callable[[str], None]


class Story:
    """Runs the demonstration in a directory of its own."""

    def __init__(self, directory: Path, say: Say) -> None:
        self.directory = directory
        self._say = say
        self._began_s = stopwatch_s()

    def init(self) -> None:
        """Write the feeds and infer the system file from what was known on the first day."""
        self._title("1. A system file, inferred from data known by 1 April")
        self.directory.mkdir(parents=True)
        write_feeds(self.directory / DATA)
        faults = msgspec.yaml.encode(FAULTS)
        (self.directory / "faults.yaml").write_bytes(faults)
        until = TRAINED_ON.strftime("%Y-%m-%d")
        self._run(
            *("init", DATA, "--label", "landings.late", "--system", SYSTEM),
            *("--timezone", str(ZONE), "--until", until),
        )

    def train(self) -> None:
        """Train on January to March, pass the gates, sign, register, release."""
        self._title("2. January to March: train, gate, sign, register, release")
        self._run("train", FILE, "--state", STATE, at=TRAINED_ON)

    def backtest(self, report: Path | None) -> None:
        """April to December through the real loop, under three policies, and once more with faults."""
        self._title("3. April to December through the real loop, on a replayed clock")
        where = report.resolve() if report else "report.json"
        days = ("--start", f"{TRAINED_ON:%Y-%m-%d}", "--end", f"{ENDS:%Y-%m-%d}")
        self._run("backtest", FILE, *days, "--faults", "faults.yaml", "--json", str(where))

    def live(self, *, keep: bool) -> Replayed:
        """Serve on loopback, replay the last days as HTTP traffic, show what was recorded."""
        self._title("4. The live system on loopback, with the last days as its traffic")
        rehearsed = _at(REHEARSED)
        with self._up(rehearsed) as up:
            replayed = replay_traffic(up, self.directory, FILE, STATE, since=REHEARSED, say=self._say)
            self._run("why", replayed.prediction_id, "--state", STATE, environment=rehearsed)
            self._run("replay", replayed.prediction_id, "--state", STATE, environment=rehearsed)
            self._run("status", "--state", STATE, environment=rehearsed)
            if keep:
                self._say("\nThe system stays up (--keep); Ctrl+C stops it.")
                with suppress(KeyboardInterrupt):
                    up.wait()
        if up.returncode not in (0, -2, 130):
            raise HoldfastError(f"`holdfast up` ended with code {up.returncode}; its messages are above")
        self._say("stopped cleanly")
        return replayed

    def end(self) -> None:
        """Say how long it took and where everything is."""
        self._say(f"\nDone in {stopwatch_s() - self._began_s:.0f} s. Everything is in {self.directory}/:")
        self._say(f"  {FILE}, faults.yaml, {DATA}/, report.json, and the state in {STATE}/; remove it when you like")

    @contextmanager
    def _up(self, environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
        argv = [sys.executable, "-m", "holdfast", "up", FILE, "--state", STATE, "--port", "0", "--console-port", "0"]
        self._say(f"$ holdfast {shlex.join(argv[3:])}   (with the clock at {REHEARSED:%Y-%m-%d})")
        process = subprocess.Popen(argv, cwd=self.directory, env=environment, stdout=subprocess.PIPE)  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, *words: str, at: datetime | None = None, environment: dict[str, str] | None = None) -> None:
        """Run one command as a user would, its output shown as it comes. Raises HoldfastError when it fails."""
        clock = f"   (with the clock at {at:%Y-%m-%d})" if at else ""
        self._say(f"$ holdfast {shlex.join(words)}{clock}")
        argv = [sys.executable, "-m", "holdfast", *words]
        done = subprocess.run(argv, cwd=self.directory, env=environment or _at(at), check=False)  # noqa: S603
        if done.returncode:
            raise HoldfastError(f"`holdfast {words[0]}` ended with code {done.returncode}; what it said is above")

    def _title(self, text: str) -> None:
        self._say(f"\n{text}\n{'-' * len(text)}")


def free_directory(wanted: Path) -> Path:
    """The directory, or one with a number behind it where that is taken: nothing of an earlier run is touched."""
    candidates: Sequence[Path] = [wanted, *(wanted.with_name(f"{wanted.name}-{n}") for n in range(2, 100))]
    for directory in candidates:
        if not directory.exists():
            return directory.resolve()
    raise HoldfastError(f"{wanted} and 98 numbered ones are taken; remove some, or give --directory")


def _at(at: datetime | None) -> dict[str, str]:
    """The environment of a command whose clock starts at a time; the machine's own time without one."""
    plain = {key: value for key, value in os.environ.items() if key != OFFSET}
    return plain if at is None else plain | {OFFSET: f"{(at - SystemClock(offset_s=0).now()).total_seconds():.0f}"}
