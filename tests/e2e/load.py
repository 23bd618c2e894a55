"""Many clients at once, and a ledger of what they sent and what was acknowledged."""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from holdfast.engines.segments import SEALED, SegmentReader

if TYPE_CHECKING:
    from .conftest import Running

PER_CONNECTION = 200
"""A client opens another connection after so many requests, so that every worker always gets some."""
_REST_S = 0.005

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked: a system, the rows that it takes and where the lake puts their values."""

    system: str
    row: Callable[[random.Random, str], dict[str, Any]]
    """A row of random values for a key."""
    columns: Mapping[str, str]
    """Columns of the lake and the values in a request that they come from."""
    token: str = ""


def _flight(chance: random.Random, key: str) -> dict[str, Any]:
    return {
        "dep_hour": chance.randrange(24),
        "distance": round(chance.uniform(0, 3000), 3),
        "carrier": chance.choice(["AA", "UA"]),
        "tailnum": f"N{chance.randrange(500)}",
        "id": key,
    }


FLIGHTS = Target(
    system="flights",
    row=_flight,
    columns={
        "in.dep_hour": "dep_hour",
        "in.distance": "distance",
        "in.carrier": "carrier",
        "key": "id",
        "unit": "tailnum",
    },
)


ORDERS = Target(
    system="orders",
    row=lambda chance, key: {
        "load": round(chance.gauss(0, 1), 6),
        "distance": round(chance.gauss(0, 1), 6),
        "kind": chance.choice(["a", "b"]),
        "id": key,
    },
    columns={"in.load": "load", "in.distance": "distance", "in.kind": "kind", "key": "id"},
)


@dataclass(slots=True)
class Asked:
    """One request id: what was sent under it first, how often, and what was acknowledged first."""

    rows: Rows
    sent_s: float = 0.0
    sends: int = 0
    answers: list[dict[str, Any]] | None = None
    answered_s: float = 0.0
    others: int = 0
    """How often it was sent again with other inputs after it was acknowledged."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a client asks: requests on their way at a time, most rows in each, and whether it repeats some ids."""

    depth: int = 1
    most_rows: int = 1
    repeats: float = 0.0
    """Share of acknowledged requests that are sent again under their id with other inputs."""


SINGLE, PIPELINED, MANY = Style(repeats=0.02), Style(depth=8, repeats=0.02), Style(depth=2, most_rows=6)
STYLES = (SINGLE, PIPELINED, MANY, SINGLE, PIPELINED, MANY)


@dataclass(slots=True)
class Load:
    """Sends requests to a port until `stop`, each until it is acknowledged; then every client ends in order."""

    port: int
    target: Target = FLIGHTS
    seed: int = 7
    is_retrying: bool = True
    """Whether requests that were refused are sent again; those of broken connections always are."""
    asked: dict[str, Asked] = field(default_factory=dict)
    acknowledged: int = 0
    broken: list[int] = field(default_factory=list)
    """The clients' ports of connections that ended with requests unanswered."""
    turned_away: int = 0
    """Connections that could not be made."""
    torn: int = 0
    """Answers of which some bytes came, but not all."""
    closed: int = 0
    """Connections that were closed in order before any byte of the answer that was due."""
    reset: int = 0
    """Connections that were reset before any byte of the answer that was due."""
    unheard: int = 0
    """Connections that ended so although they had never given an answer."""
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: set[str] = field(default_factory=set)
    """What was said where there was no answer."""
    slowest_s: float = 0.0
    """Longest time from the sending of a request to its answer, on a connection that did not break."""
    rest_s: float = 0.0
    """How long every client rests after each answer or batch of answers."""
    is_stopping: bool = False

    async def run(self, styles: Sequence[Style] = STYLES) -> None:
        await asyncio.gather(*(_Client(self, number, style).run() for number, style in enumerate(styles)))

    def stop(self) -> None:
        self.is_stopping = True

    def note_broken(self, port: int, error: Exception) -> None:
        """A connection ended before the answer that was due."""
        self.broken.append(port)
        if not isinstance(error, asyncio.IncompleteReadError):
            self.reset += 1
        elif error.partial:
            self.torn += 1
        else:
            self.closed += 1

    async def until(self, condition: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
        """Look until something holds, while the clients go on; returns it."""
        end = time.monotonic() + deadline_s
        while not (found := condition()):
            assert time.monotonic() < end, f"not in time: {what}"
            await asyncio.sleep(_REST_S)
        return found

    async def more(self, count: int) -> None:
        """Wait until so many more requests were acknowledged."""
        target = self.acknowledged + count
        await self.until(lambda: self.acknowledged >= target, f"{count} more answers")


def orders_load(up: "Running") -> Load:
    """A load on the system of a `holdfast up`."""
    return Load(int(up.url.rsplit(":", 1)[1]), target=replace(ORDERS, token=up.token))


def under_load(load: Load, story: Callable[[], Any], styles: Sequence[Style] = STYLES) -> None:
    """Let something happen while clients ask; what they still wait for when it is over is seen to its end."""

    async def both() -> None:
        async def told() -> None:
            try:
                await story()
            finally:
                load.stop()

        async with asyncio.timeout(1200):
            await asyncio.gather(load.run(styles), told())

    asyncio.run(both())


class _Client:
    def __init__(self, load: Load, number: int, style: Style) -> None:
        self.load, self.number, self.style = load, number, style
        self.random = random.Random(load.seed * 1000 + number)
        self.count = 0
        self.again: list[tuple[str, Rows]] = []

    async def run(self) -> None:
        while self.again or not self.load.is_stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.load.port)
            except OSError:
                self.load.turned_away += 1
                await asyncio.sleep(_REST_S)
                continue
            try:
                await self._talk(reader, writer)
            finally:
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        is_new = True
        for _ in range(PER_CONNECTION // self.style.depth):
            batch = self._batch()
            if not batch:
                return
            sent_s = time.monotonic()
            for id, rows in batch:
                asked = self.load.asked.setdefault(id, Asked(rows))
                asked.sent_s = asked.sent_s or sent_s
                if rows is asked.rows:
                    asked.sends += 1
                else:
                    asked.others += 1
            writer.write(b"".join(_written(self.load.target, id, rows) for id, rows in batch))
            while batch:
                try:
                    status, body = await _answer(reader)
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.load.note_broken(port, error)
                    self.load.unheard += is_new
                    self.again += [(id, rows) for id, rows in batch if rows is self.load.asked[id].rows]
                    return
                self.load.slowest_s = max(self.load.slowest_s, time.monotonic() - sent_s)
                is_new = False
                self._take(*batch.pop(0), status, body)
            if self.load.rest_s:
                await asyncio.sleep(self.load.rest_s)

    def _batch(self) -> list[tuple[str, Rows]]:
        batch, self.again = self.again[: self.style.depth], self.again[self.style.depth :]
        while len(batch) < self.style.depth and not self.load.is_stopping:
            id = f"c{self.load.seed}-{self.number}-{self.count}"
            self.count += 1
            batch.append((id, self._rows(id)))
        return batch

    def _rows(self, id: str) -> Rows:
        count = self.random.randint(1, self.style.most_rows)
        return [self.load.target.row(self.random, f"{id}-{place}") for place in range(count)]

    def _take(self, id: str, rows: Rows, status: int, body: bytes) -> None:
        asked = self.load.asked[id]
        self.load.statuses[status] += 1
        if status != 200:
            self.load.refusals.add(body.decode())
            if self.load.is_retrying and rows is asked.rows:
                self.again.append((id, rows))
            return
        answer = json.loads(body)
        assert answer["request_id"] == id, "an answer of another request"
        assert len(answer["predictions"]) == len(rows)
        if rows is not asked.rows:
            return
        assert asked.answers is None, "acknowledged twice"
        asked.answers, asked.answered_s = answer["predictions"], time.monotonic()
        self.load.acknowledged += 1
        if self.random.random() < self.style.repeats and not self.load.is_stopping:
            self.again.append((id, self._rows(id)))


def _written(target: Target, id: str, rows: Rows) -> bytes:
    """A request under its id: of one row with the id in the head, of several with the id in the body."""
    lines = [f"POST /predict/{target.system} HTTP/1.1", "host: test", "content-type: application/json"]
    if target.token:
        lines.append(f"authorization: Bearer {target.token}")
    if len(rows) == 1:
        lines.append(f"x-request-id: {id}")
    body = json.dumps(rows[0] if len(rows) == 1 else {"rows": rows, "id": id})
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", body]).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer. Raises IncompleteReadError with what there was of it."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    try:
        return int(head[9:12]), await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise asyncio.IncompleteReadError(head + error.partial, length) from error
    except OSError as error:
        raise asyncio.IncompleteReadError(head, length) from error


_ANSWERED = ("prediction_id", "out.probability", "version", "status")


class Reconciled:
    """What a ledger and a lake say of each other; `problems` is empty where they agree."""

    def __init__(self, load: Load, recorded: pl.DataFrame) -> None:
        self.acknowledged = sum(asked.answers is not None for asked in load.asked.values())
        self.acknowledged_rows = 0
        self.recorded_rows = recorded.height
        self.problems: list[str] = []
        columns = load.target.columns
        frame = recorded.select(*_ANSWERED, *columns) if recorded.width else recorded
        found: dict[str, dict[str, Any]] = {row["prediction_id"]: row for row in frame.iter_rows(named=True)}
        if len(found) != recorded.height:
            self.problems.append("an id stands twice in a scan")
        for id, asked in load.asked.items():
            for place, row in enumerate(asked.rows):
                there = found.pop(f"{id}:{place}", None)
                if asked.answers is None:
                    if there is not None and not _is_input(columns, there, row):
                        self.problems.append(f"{id}:{place} was recorded as {there}, sent as {row}")
                    continue
                self.acknowledged_rows += 1
                if there is None:
                    self.problems.append(f"{id}:{place} was acknowledged and is not recorded")
                elif why := _differs(columns, there, row, asked.answers[place], asked.sends):
                    self.problems.append(f"{id}:{place} {why}")
        self.problems += [f"{id} is recorded and was never sent" for id in found]


def _is_input(columns: Mapping[str, str], there: dict[str, Any], row: dict[str, Any]) -> bool:
    return all(there[name] == row[given] for name, given in columns.items())


def _differs(
    columns: Mapping[str, str], there: dict[str, Any], row: dict[str, Any], answer: dict[str, Any], sends: int
) -> str:
    if not _is_input(columns, there, row):
        return f"was recorded as {there}, sent as {row}"
    if there["status"] != "ok" or answer["prediction_id"] != there["prediction_id"]:
        return f"was recorded as {there}, answered as {answer}"
    if sends == 1 and (there["out.probability"], there["version"]) != (answer["probability"], answer["version"]):
        return f"was recorded as {there}, answered as {answer}"
    # A request that was sent twice may have been recorded in another batch than it was answered in.
    if there["version"] == answer["version"] and not math.isclose(
        there["out.probability"], answer["probability"], rel_tol=1e-6
    ):
        return f"was recorded as {there}, answered as {answer}"
    return ""


def times_written(lake: Path) -> Counter[str]:
    """How often each prediction id was written to a segment, before any scan drops what stands twice."""
    times: Counter[str] = Counter()
    for path in (lake / "flights" / "predictions").glob("*.seg*"):
        reader = SegmentReader("predictions")
        reader.read(path, is_sealed=path.name.endswith(SEALED))
        frame = reader.frame()
        if frame.width:
            times.update(frame["prediction_id"].to_list())
    return times


def written_too_often(load: Load, times: Counter[str]) -> list[str]:
    """Prediction ids that were written more often than they were sent."""
    sends = {id: asked.sends + asked.others for id, asked in load.asked.items()}
    return [id for id, count in times.items() if count > sends.get(id.rpartition(":")[0], 0)]
