"""On a schedule: window -> check -> verdicts. In: live windows, a version's reference. Out: verdicts and readings."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Role, Verdict, Window
from holdfast.core.protocols import Check, Task, Transaction
from holdfast.core.records import Mark
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.flow import evaluation
from holdfast.flow.evaluation import Evaluation
from holdfast.flow.predictions import LivePredictions

RECENT_DAYS = 14
"""How many days before the window are the baseline of a check that compares with the recent past."""
MONTH = timedelta(days=30)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a live version was promised to be like: the rows it was trained and held out on, and its metrics."""

    version: str
    blocks: tuple[Block, ...]
    facts: Mapping[str, Any]
    """Among them ``edges``, fixed for the version, and its ``signature``."""
    promised: Mapping[str, float]
    """Upper end of the interval of each loss on the hold-out days."""


class Monitoring:
    """Runs the monitors of one system."""

    def __init__(self, spec: SystemSpec, task: Task, live: LivePredictions) -> None:
        self._spec = spec
        self._task = task
        self._live = live
        self._checks: dict[str, Check] = {m.name: kinds.load("checks", m.check)(**m.options) for m in spec.monitors}
        self._histories: dict[tuple[str, str], dict[str, list[float]]] = {}
        self._usuals: dict[tuple[str, str], Mapping[tuple[str, str], float]] = {}

    def due(self, tx: Transaction, now: datetime, since: datetime) -> list[Monitor]:
        """Monitors whose next evaluation is due, given when the first version went live."""
        due = []
        for monitor in self._spec.monitors:
            last = self._mark(tx, monitor).last_at or since
            if now - last >= monitor.every:
                due.append(monitor)
        return due

    def run(
        self, tx: Transaction, monitor: Monitor, reference: Reference, facts: Mapping[str, Any], now: datetime
    ) -> Sequence[Verdict]:
        """Evaluate one monitor on the newest complete evidence and store what it remembers."""
        mark = self._mark(tx, monitor)
        memory = mark.memory if mark.memory.get("version") == reference.version else {}
        done = self._evaluate(monitor, reference, facts, memory, now)
        remembered = {**done.memory, "version": reference.version}
        tx.put(replace(mark, last_at=now, memory=remembered))
        return [replace(verdict, at=now) for verdict in done.verdicts]

    def level(self, monitor: Monitor) -> float:
        """The false-alarm level of one evaluation: the file's budget, split evenly over the calibrated monitors.

        The expected number of openings is at most the sum of evaluations times level under any dependence between
        monitors (Spjøtvoll 1972).
        """
        sharing = sum(1 for m in self._spec.monitors if self._is_calibrated(m))
        each = timedelta(days=1) if self._checks[monitor.name].evidence == "stream" else monitor.every
        return min(0.5, self._spec.false_alarms / max(sharing, 1) / (MONTH / each))

    def last_runs(self, tx: Transaction) -> dict[str, tuple[datetime | None, timedelta]]:
        """When each monitor ran last and how often it should, for the check that watches the monitors."""
        return {m.name: (self._mark(tx, m).last_at, m.every) for m in self._spec.monitors}

    def _is_calibrated(self, monitor: Monitor) -> bool:
        return self._checks[monitor.name].evidence != "stated" and not monitor.limit.is_stated

    def _mark(self, tx: Transaction, monitor: Monitor) -> Mark:
        id = f"monitor/{monitor.name}"
        return tx.get(Mark, self._spec.system, id) or Mark(system=self._spec.system, id=id)

    def _evaluate(
        self, monitor: Monitor, reference: Reference, facts: Mapping[str, Any], memory: Mapping[str, Any], now: datetime
    ) -> Evaluation:
        check = self._checks[monitor.name]
        facts = {**reference.facts, **facts, "task": self._task}
        if check.against == "recent":
            facts["usual"] = self._usual(monitor, check, reference, facts)
        if check.evidence == "stream" and not monitor.limit.is_stated:
            return self._evaluate_stream(monitor, check, reference, facts, memory, now)
        window = self._window(monitor, check, facts, now)
        bad_days = frozenset(memory.get("bad_days", ()))
        baseline = self._baseline(check, window, reference, bad_days, now)
        readings = evaluation.measure(check, window, baseline)
        if monitor.limit.is_stated:
            return evaluation.judge_limit(monitor.check, readings, monitor.limit, name=monitor.name)
        if check.evidence == "stated":
            judged = evaluation.judge_stated(check, monitor.check, readings, name=monitor.name)
            return _remember_bad_days(judged, window, memory)
        history = self._history(monitor, check, reference, facts)
        return evaluation.judge_window(
            check, monitor.check, readings, history, level=self.level(monitor), name=monitor.name
        )

    def _evaluate_stream(
        self,
        monitor: Monitor,
        check: Check,
        reference: Reference,
        facts: Mapping[str, Any],
        memory: Mapping[str, Any],
        now: datetime,
    ) -> Evaluation:
        """Fold every mature day that was not folded yet; the newest verdict stands, an alarm on the way stays.

        A promise is about a version's own answers: what others answered on a day is left out.
        """
        newest = self._live.last_mature_day(now)
        through = memory.get("through")
        day = newest if through is None else datetime.fromisoformat(through).date() + timedelta(days=1)
        verdicts: tuple[Verdict, ...] = ()
        while day <= newest:
            window = self._live.answered_by(reference.version, day, facts)
            reading = evaluation.measure(check, window, None)[0]
            folded = evaluation.judge_stream(
                monitor.check,
                reading,
                promised=reference.promised.get(reading.name, math.nan),
                level=self.level(monitor),
                memory=memory,
                name=monitor.name,
            )
            memory = {**folded.memory, "through": day.isoformat()}
            if not (verdicts and verdicts[0].grade is Grade.FAIL):
                verdicts = folded.verdicts
            day += timedelta(days=1)
        return Evaluation(verdicts=verdicts, memory=dict(memory))

    def _window(self, monitor: Monitor, check: Check, facts: Mapping[str, Any], now: datetime) -> Window:
        days = max(1, monitor.window.days) - 1
        if Role.LABEL in check.needs:
            newest = self._live.last_mature_day(now)
            return self._live.labelled_window(newest - timedelta(days=days), newest, facts)
        newest = self._live.last_complete_day(now)
        return self._live.window(newest - timedelta(days=days), newest, facts, now)

    def _baseline(
        self, check: Check, window: Window, reference: Reference, bad_days: frozenset[str], now: datetime
    ) -> Window | None:
        if check.against == "reference":
            return Window(reference.blocks, window.roles, window.facts)
        if check.against == "recent" and window.blocks:
            first = window.blocks[0].day
            recent = self._live.window(first - timedelta(days=RECENT_DAYS), first - timedelta(days=1), {}, now)
            good = [block for block in recent.blocks if block.day.isoformat() not in bad_days]
            return Window(good, window.roles, window.facts)
        return None

    def _usual(
        self, monitor: Monitor, check: Check, reference: Reference, facts: Mapping[str, Any]
    ) -> Mapping[tuple[str, str], float]:
        """The largest reading by name and subject on the days a version was promised on, each against the days before
        it: what a check that looks for jumps must see surpassed."""
        key = (reference.version, monitor.name)
        if key not in self._usuals:
            blocks, roles = reference.blocks, self._live.roles()
            usual: dict[tuple[str, str], float] = {}
            for i in range(RECENT_DAYS, len(blocks)):
                before = Window(blocks[i - RECENT_DAYS : i], roles, facts)
                for reading in evaluation.measure(check, Window(blocks[i : i + 1], roles, facts), before):
                    if reading.value is not None and reading.subject in reference.facts["edges"]:
                        name = (reading.name, reading.subject)
                        usual[name] = max(usual.get(name, reading.value), reading.value)
            self._usuals[key] = usual
        return self._usuals[key]

    def _history(
        self, monitor: Monitor, check: Check, reference: Reference, facts: Mapping[str, Any]
    ) -> dict[str, list[float]]:
        key = (reference.version, monitor.name)
        if key not in self._histories:
            days = max(1, monitor.window.days)
            blocks = reference.blocks
            starts = range(len(blocks) % days, len(blocks) - days + 1, days)
            roles = self._live.roles()
            windows = [Window(blocks[i : i + days], roles, facts) for i in starts]
            self._histories[key] = evaluation.history_of(check, windows, Window(blocks, roles, facts))
        return self._histories[key]


def _remember_bad_days(judged: Evaluation, window: Window, memory: Mapping[str, Any]) -> Evaluation:
    """Keep the days on which a check failed out of its own baseline, or a fault would soon look normal. After as many
    days as the baseline is long, what lasts does count as normal."""
    days = [block.day.isoformat() for block in window.blocks]
    bad = [*memory.get("bad_days", ()), *(days if judged.verdicts and judged.verdicts[0].grade is Grade.FAIL else ())]
    return replace(judged, memory={"bad_days": list(dict.fromkeys(bad))[-RECENT_DAYS:]})
