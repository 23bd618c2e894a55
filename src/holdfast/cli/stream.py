"""``holdfast stream``: answers the messages of a topic as they come, until it is told to stop."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many
from holdfast.core.spec import Serve
from holdfast.errors import SourceError, StateError
from holdfast.lookups import only_system
from holdfast.processes.logs import log_to_stderr
from holdfast.scoring.stream import Stream, StreamPlan
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.sources.kafka import KafkaStream
from holdfast.state import State, system_file

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=1)
"""How often it is looked whether another version answers by now."""

Brokers = Annotated[str, typer.Option("--brokers", metavar="HOST:PORT,...", help="Where the cluster is found.")]
From = Annotated[str, typer.Option("--from", metavar="TOPIC", help="Rows: one JSON object per message.")]
To = Annotated[str, typer.Option("--to", metavar="TOPIC", help="Where answers go; without it they are only recorded.")]
Dead = Annotated[str, typer.Option("--dead", metavar="TOPIC", help="Where messages go that cannot be answered.")]
Group = Annotated[str, typer.Option("--group", metavar="NAME", help="Consumer group; not given: holdfast-SYSTEM.")]
Instance = Annotated[str, typer.Option("--instance", metavar="NAME", help="Which member of the group this is.")]
Settings = Annotated[
    Path | None, typer.Option("--settings", metavar="FILE", help="Settings of librdkafka, one `name=value` a line.")
]
Transactions = Annotated[
    bool, typer.Option("--transactions/--no-transactions", help="Send answers and offsets together or not at all.")
]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop at the end of the topic.")]


def stream(
    brokers: Brokers,
    from_: From,
    to: To = "",
    dead: Dead = "",
    group: Group = "",
    instance: Instance = "0",
    settings: Settings = None,
    transactions: Transactions = True,
    until_end: UntilEnd = False,
    system: SystemName = "",
    state: StateDirectory = STATE,
    as_json: AsJson = False,
) -> None:
    """Answer messages, record each answer, send it, and only then count the message as done. Ctrl+C ends it."""
    log_to_stderr()
    if from_ in (to, dead):
        raise StateError(f"'{from_}' is what is read; send answers to another topic")
    clock = SystemClock()
    with opened(state) as here:
        with here.catalog.read() as tx:
            name = only_system(tx, system)
            spec = here.spec(system_file(tx, name))
        feed = spec.data.feeds[spec.data.rows]
        plan = StreamPlan(system=name, to=to, dead=dead, event_at=feed.event_at or "", known_at=feed.known_at or "")
        recorder = Recorder(here.lake.writer, lambda system: Serve(record="disk"))
        plane = DataPlane(here.load_model, recorder, clock)
        routes = _Routes(here, plane, clock)
        routes.follow()
        plane.signature(name)  # says so now where no version is live
        messages = KafkaStream(
            brokers=brokers,
            source=from_,
            group=group or f"holdfast-{name}",
            instance=instance,
            transactional=transactions,
            settings=_settings(settings),
        )
        running = Stream(plan, messages, plane, here.lake, clock)
        try:
            with _until_told() as told:
                running.run(lambda: routes.look() and not told, until_end=until_end)
        finally:
            recorder.close()
            messages.close()
    done = running.counts
    if as_json:
        say_json(done)
    else:
        came = f"{done.answered:,} answered, {done.again:,} answered before, {done.dead:,} not"
        say(f"{many(done.taken, 'message')}: {came}")


class _Routes:
    """Follows the versions that the catalog has in force."""

    def __init__(self, here: State, plane: DataPlane, clock: SystemClock) -> None:
        self._here, self._plane, self._clock = here, plane, clock
        self._generation = -1
        self._looked_at = clock.now()

    def look(self) -> bool:
        """Follow what is new, once in a while; always True."""
        now = self._clock.now()
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self.follow()
        return True

    def follow(self) -> None:
        """Switch to the routes in force. A version that cannot be loaded leaves the one before."""
        with self._here.catalog.read() as tx:
            generation = self._here.generation(tx)
            if generation == self._generation:
                return
            routes = self._here.routes(tx)
        held = self._plane.follow(routes).held
        for system, why in held.items():
            log.error("'%s' keeps its older version: %s", system, why)
        if not held:  # else it is tried again at the next look
            self._generation = generation


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM fill, so that what was begun is finished first."""
    told: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: told.append(number)) for number in signals]
    try:
        yield told
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _settings(file: Path | None) -> dict[str, str]:
    """Settings of a file. Values may be secrets, so no error shows one."""
    if file is None:
        return {}
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise SourceError(f"{file}:{number} has no '='; write name=value, as in security.protocol=SASL_SSL")
        found[name.strip()] = value.strip()
    return found
