"""Sees what befalls the processes and the machine, and writes it into the audit log, where incidents find it.

Looked at is what is said already: signs of life, how the supervisor saw workers end, room on the disk, two clocks.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.meaning import many
from holdfast.core.records import Mark
from holdfast.flow import happenings
from holdfast.flow.happenings import EVERY_SYSTEM
from holdfast.presence import KEEPER, Presence, read_presence
from holdfast.serve.heartbeat import Heartbeat, read_ends, read_heartbeat
from holdfast.state import State

MARK = "host"
"""What was seen last, so that the next keeper goes on from there."""
QUIET = timedelta(minutes=10)
"""What befalls the same thing again within this time is counted, and told together."""
LEAST_FREE_BYTES = 16 * 1024 * 1024
"""With less room a disk counts as full: what is rolled or counted next would not fit."""
JUMP = timedelta(seconds=5)
"""The clock jumped where it went on so much more or less than the stopwatch between two looks."""
MOST_UNTOLD = 1000
"""So many events wait at most for a catalog that cannot be written."""


class Befallen(msgspec.Struct, frozen=True, kw_only=True):
    """One event: what, to whom, and a sentence about it."""

    at: datetime
    action: str
    subject: str
    why: str
    system: str = EVERY_SYSTEM


class _Memory(msgspec.Struct, kw_only=True):
    """What was seen by now. The workers of another supervisor are others."""

    up: list[float] = []
    """Process id and start of the supervisor."""
    keeper: int = 0
    pids: dict[str, int] = {}
    counted: dict[str, list[int]] = {}
    """By worker its process, and the rows refused and shed that were seen of it."""
    unrecorded: dict[str, list[int]] = {}
    """By worker the rows refused and shed that are not told yet, of whichever of its processes."""
    held: dict[str, str] = {}
    is_full: bool = False


def free_bytes(directory: Path) -> int:
    """Room on the disk of a directory, in bytes. Raises OSError."""
    return shutil.disk_usage(directory).free


class HostWatch:
    """Looks once a round. What cannot be written, as on a full disk, is written when that works again."""

    def __init__(
        self,
        state: State,
        clock: Clock,
        *,
        pid: int,
        stopwatch: Callable[[], float] = stopwatch_s,
        room: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._state, self._clock, self._pid = state, clock, pid
        self._stopwatch, self._room = stopwatch, room
        self._last: tuple[datetime, float] | None = None
        self._told_at: dict[tuple[str, str], datetime] = {}
        self._more: dict[tuple[str, str], int] = {}
        self._untold: list[Befallen] = []
        self._memory: _Memory | None = None
        # Read before this keeper writes its own.
        self._before = read_heartbeat(state.run_directory, KEEPER)

    def look(self) -> None:
        """Take up what befell since the last look. Raises HoldfastError when the catalog cannot be read or written."""
        now = self._clock.now()
        memory = self._memory if self._memory is not None else self._remembered()
        was = msgspec.json.encode(memory)
        up = read_presence(self._state.run_directory)
        self._untold += [*self._jumped(now), *self._filled(memory, now)]
        if up is not None:
            beats = {name: read_heartbeat(self._state.run_directory, name) for name in up.workers}
            self._untold += self._begun(memory, up, now)
            self._untold += [*self._replaced(memory, beats, now), *self._counted(now)]
            self._untold += self._unrecorded(memory, beats, now)
            self._untold += self._held(memory, beats, now)
        self._memory, self._untold = memory, self._untold[-MOST_UNTOLD:]
        if self._untold or msgspec.json.encode(memory) != was:
            self._write(memory, now)

    def _remembered(self) -> _Memory:
        with self._state.catalog.read() as tx:
            mark = tx.get(Mark, EVERY_SYSTEM, MARK)
        with suppress(msgspec.ValidationError):
            return msgspec.convert(mark.memory if mark else {}, _Memory)
        return _Memory()

    def _write(self, memory: _Memory, now: datetime) -> None:
        remembered: dict[str, Any] = msgspec.to_builtins(memory)
        with self._state.catalog.begin() as tx:
            for each in self._untold:
                detail: Mapping[str, Any] = {"why": each.why}
                tx.audit(
                    at=each.at,
                    actor="holdfast",
                    action=each.action,
                    system=each.system,
                    subject=each.subject,
                    detail=detail,
                )
            tx.put(Mark(system=EVERY_SYSTEM, id=MARK, last_at=now, memory=remembered))
        self._untold = []

    def _begun(self, memory: _Memory, up: Presence, now: datetime) -> Iterator[Befallen]:
        """Another supervisor than was seen last, or another keeper under the same one."""
        stands, sign = [float(up.pid), up.started_at_s], self._before
        last = f"; the last sign of life before was given at {_minute(sign.at)}" if sign is not None else ""
        if memory.up != stands:
            # What is held or not told yet is so still: its end is told when the new workers say so.
            memory.pids, memory.counted = {}, {}
            yield Befallen(
                at=now, action=happenings.BROUGHT_UP, subject="holdfast", why=f"Holdfast was brought up{last}"
            )
        elif memory.keeper != self._pid:
            why = f"the keeper was replaced{last}"
            yield Befallen(at=now, action=happenings.KEEPER_REPLACED, subject=KEEPER, why=why)
        memory.up, memory.keeper = stands, self._pid

    def _replaced(self, memory: _Memory, beats: Mapping[str, Heartbeat | None], now: datetime) -> Iterator[Befallen]:
        """Workers that are another process than before, with what the supervisor saw of the end of that."""
        for name, beat in beats.items():
            known = memory.pids.get(name)
            if beat is None or beat.pid == known:
                continue
            memory.pids[name] = beat.pid
            if known is None:
                continue
            ends = read_ends(self._state.run_directory, name)
            newest = next((end for end in ends[::-1] if end.pid == known), ends[-1] if ends else None)
            how = newest.how if newest is not None else "ended, nobody saw how,"
            at = datetime.fromisoformat(newest.at) if newest is not None else now
            between = sum(1 for end in ends if newest is not None and end.at > newest.at)
            if count := self._paced((happenings.WORKER_REPLACED, name), 1 + between, now):
                times = f", {many(count - 1, 'time')} more in the meantime" if count > 1 else ""
                why = f"{name} {how} and was replaced{times}"
                yield Befallen(at=at, action=happenings.WORKER_REPLACED, subject=name, why=why)

    def _counted(self, now: datetime) -> Iterator[Befallen]:
        """Deaths that were only counted, once nothing was told of that worker for a while."""
        for action, name in [key for key in self._more if key[0] == happenings.WORKER_REPLACED]:
            if count := self._paced((action, name), 0, now):
                why = f"{name} ended and was replaced {many(count, 'time')} more by then"
                yield Befallen(at=now, action=action, subject=name, why=why)

    def _unrecorded(self, memory: _Memory, beats: Mapping[str, Heartbeat | None], now: datetime) -> Iterator[Befallen]:
        """Rows that were refused or shed because they could not be recorded, since that was told last."""
        for name, beat in beats.items():
            if beat is None:
                continue
            known = memory.counted.get(name, [])
            before = known[1:] if known[:1] == [beat.pid] else [0, 0]
            memory.counted[name] = [beat.pid, beat.lost, beat.shed]
            new = [beat.lost - before[0], beat.shed - before[1]]
            lost, shed = (a + b for a, b in zip(memory.unrecorded.pop(name, [0, 0]), new, strict=True))
            if not (lost or shed):
                continue
            if not self._paced((happenings.UNRECORDED, name), 1, now):
                memory.unrecorded[name] = [lost, shed]
                continue
            parts = [f"{many(lost, 'row')} refused"] if lost else []
            parts += [f"{many(shed, 'row')} answered without a record"] if shed else []
            why = f"{name} could not record: {' and '.join(parts)}"
            yield Befallen(at=now, action=happenings.UNRECORDED, subject=name, why=why)

    def _held(self, memory: _Memory, beats: Mapping[str, Heartbeat | None], now: datetime) -> Iterator[Befallen]:
        """Systems whose newest routes a worker does not follow, and those that all follow again, which is known only
        where the sign of each can be read."""
        held: dict[str, str] = {}
        for beat in beats.values():
            held |= beat.held if beat is not None else {}
        for system, reason in held.items():
            if system not in memory.held and self._paced((happenings.HELD, system), 1, now):
                memory.held[system] = reason
                why = f"older routes were held: {reason}"
                yield Befallen(at=now, action=happenings.HELD, subject=system, why=why, system=system)
        if None in beats.values():
            return
        for system in [name for name in memory.held if name not in held]:
            del memory.held[system]
            yield Befallen(
                at=now,
                action=happenings.FOLLOWED,
                subject=system,
                why="the newest routes were followed again",
                system=system,
            )

    def _filled(self, memory: _Memory, now: datetime) -> Iterator[Befallen]:
        try:
            room = self._room(self._state.directory)
        except OSError:
            return
        if memory.is_full and room >= 2 * LEAST_FREE_BYTES:  # more than it takes, or it would be told with every file
            memory.is_full = False
            why = f"the disk of the state has room again: {_megabytes(room)}"
            yield Befallen(at=now, action=happenings.DISK_FREE, subject="disk", why=why)
        elif not memory.is_full and room < LEAST_FREE_BYTES:
            memory.is_full = True
            why = f"the disk of the state was full: {_megabytes(room)} left"
            yield Befallen(at=now, action=happenings.DISK_FULL, subject="disk", why=why)

    def _jumped(self, now: datetime) -> Iterator[Befallen]:
        """Where the clock went on otherwise than the stopwatch, which stands still while a machine sleeps."""
        at_s, last = self._stopwatch(), self._last
        self._last = (now, at_s)
        if last is None:
            return
        by = (now - last[0]) - timedelta(seconds=at_s - last[1])
        if by >= JUMP:
            why = f"the clock jumped ahead by {_length(by)}, or the machine slept as long"
        elif by <= -JUMP:
            why = f"the clock jumped back by {_length(-by)}"
        else:
            return
        yield Befallen(at=now, action=happenings.CLOCK_JUMPED, subject="clock", why=why)

    def _paced(self, key: tuple[str, str], count: int, now: datetime) -> int:
        """How many to tell now: this one and those that waited; 0 so soon after the last."""
        self._more[key] = self._more.get(key, 0) + count
        told_at = self._told_at.get(key)
        if told_at is not None and timedelta(0) <= now - told_at < QUIET:
            return 0
        self._told_at[key] = now
        return self._more.pop(key)


def _minute(at: str) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M} UTC"


def _megabytes(room: int) -> str:
    return f"{room / 1e6:,.0f} MB"


def _length(by: timedelta) -> str:
    return str(timedelta(seconds=round(by.total_seconds())))
