"""On a schedule: window -> check -> verdicts. In: live windows, a version's reference. Out: verdicts and readings."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import polars as pl
from msgspec.structs import replace

from holdfast.core import kinds
from holdfast.core.evidence import Block, Grade, Reading, Role, Verdict, Window
from holdfast.core.protocols import Check, Task, Transaction
from holdfast.core.records import Mark
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.flow import evaluation
from holdfast.flow.evaluation import Evaluation, History, Usual
from holdfast.flow.predictions import LivePredictions
from holdfast.stats.conformal import Look, split_levels

RECENT_DAYS = 14
"""How many days before the window are the baseline of a check that compares with the recent past."""
EARLIER_DAYS = 90
"""How many mature days show a check how good its earlier estimates were."""
MOST_DAYS = 90
"""The recent past goes back so many days at most where days have few rows."""
FEW_ROWS = 30
"""Days with fewer rows are pooled by a check that compares with the recent past, which then needs more of them."""
DAY, MONTH = timedelta(days=1), timedelta(days=30)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a live version was promised to be like: the rows it was trained and held out on, and its metrics."""

    version: str
    blocks: tuple[Block, ...]
    facts: Mapping[str, Any]
    """Among them ``edges``, fixed for the version, and its ``signature``."""
    promised: Mapping[str, float]
    """Upper end of the interval of each loss on the hold-out days."""
    short: str = ""
    """Why nothing can be compared with it yet; empty when something can."""
    unlabelled: str = ""
    """Why nothing that needs labels can be compared with it yet; empty when it can."""
    until: date | None = None
    """Its last day, where what was answered since then is to be looked at, from before monitoring began too."""


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor may spend of the budget of false alarms."""

    level: float
    """Of one evaluation, of a stream that of one day; 0 where it takes no share."""
    look: float = 0.0
    """Of a stream's second look: at each day by itself, among the days of history."""
    why: str = ""
    """Why it takes no share; empty where it does."""


class Monitoring:
    """Runs the monitors of one system."""

    def __init__(self, spec: SystemSpec, task: Task, live: LivePredictions) -> None:
        self._spec = spec
        self._task = task
        self._live = live
        self._checks: dict[str, Check] = {m.name: kinds.load("checks", m.check)(**m.options) for m in spec.monitors}
        self._histories: dict[tuple[str, str], History] = {}
        self._days: dict[tuple[str, str], Usual | None] = {}
        self._levels: dict[tuple[str, ...], Mapping[str, Levels]] = {}
        self._usuals: dict[tuple[str, str], Mapping[tuple[str, str], float]] = {}

    def due(self, tx: Transaction, now: datetime, since: datetime, reference: Reference | None = None) -> list[Monitor]:
        """Monitors whose next evaluation is due, given when the first version went live; where a reference is given,
        those too that had to do without one when they were due and now need not."""
        due = []
        for monitor in self._spec.monitors:
            last = self._mark(tx, monitor).last_at or since
            awaited = reference is not None and self._awaits(tx, monitor) and not self._lacking(monitor, reference)
            if now - last >= monitor.every or awaited:
                due.append(monitor)
        return due

    def run(
        self, tx: Transaction, monitor: Monitor, reference: Reference, facts: Mapping[str, Any], now: datetime
    ) -> Sequence[Verdict]:
        """Evaluate one monitor on the newest complete evidence and store what it remembers."""
        mark = self._mark(tx, monitor)
        memory = mark.memory if mark.memory.get("version") == reference.version else {}
        first = mark.memory.get("first") or mark.memory.get("since") or ""
        done = self._evaluate(monitor, reference, facts, {**memory, "first": first}, now)
        since = memory.get("since") or self._live.last_complete_day(now).isoformat()
        # Not of a version alone: the days before it were answered by another on inputs like these.
        remembered = {**done.memory, "version": reference.version, "since": since, "first": first or since}
        if self._lacking(monitor, reference):
            remembered["awaits"] = True
        tx.put(replace(mark, last_at=now, memory=remembered))
        return [replace(verdict, at=now) for verdict in done.verdicts]

    def awaits_reference(self, tx: Transaction) -> bool:
        """Whether a monitor could not be evaluated for want of a reference when it was due last."""
        return any(self._awaits(tx, monitor) for monitor in self._spec.monitors)

    def _awaits(self, tx: Transaction, monitor: Monitor) -> bool:
        return bool(self._mark(tx, monitor).memory.get("awaits"))

    def forget(self) -> None:
        """Compute anew what was made of a reference: it changed."""
        for made in (self._histories, self._usuals, self._days, self._levels):
            made.clear()

    def _lacking(self, monitor: Monitor, reference: Reference) -> str:
        """Why the reference does not suffice for a monitor; empty where it does, or where none is needed."""
        check = self._checks[monitor.name]
        if check.against != "reference" and (check.evidence == "stated" or monitor.limit.is_stated):
            return ""
        return reference.short or (reference.unlabelled if Role.LABEL in check.needs else "")

    def levels(self, reference: Reference, facts: Mapping[str, Any]) -> Mapping[str, Levels]:
        """By name what each calibrated monitor may spend on one evaluation: the file's budget, split by need.

        The expected number of openings is at most the sum of evaluations times level, which stays within the budget,
        under any dependence between monitors. What the reference's history can never calibrate takes no share.
        """
        sharing = [m for m in self._spec.monitors if self._is_calibrated(m) and not self._lacking(m, reference)]
        key = (reference.version, *(monitor.name for monitor in sharing))  # labels of a reference may come later
        if key not in self._levels:
            facts = {**reference.facts, **facts, "task": self._task}
            self._levels[key] = self._split(sharing, reference, facts)
        return self._levels[key]

    def _split(
        self, sharing: Sequence[Monitor], reference: Reference, facts: Mapping[str, Any]
    ) -> Mapping[str, Levels]:
        looks: list[Look] = []
        second: dict[str, int] = {}
        for monitor in sharing:
            check, windows = self._checks[monitor.name], None
            if check.evidence == "window":
                windows = evaluation.windows_of(self._history(monitor, check, reference, facts))
            looks.append(Look(MONTH / (DAY if windows is None else monitor.every), windows))
        for monitor in sharing:
            check = self._checks[monitor.name]
            if check.evidence == "stream" and (usual := self._usual_days(monitor, check, reference, facts)):
                second[monitor.name] = len(looks)
                looks.append(Look(MONTH / DAY, len(usual.looks()), is_second=True))
        budget = self._spec.false_alarms
        levels = split_levels(budget, looks)
        found = {}
        for k, monitor in enumerate(sharing):
            look, why = looks[k], ""
            if not levels[k]:
                sort = "disjoint windows" if monitor.window <= monitor.every else "windows"
                why = f"history has {look.windows} {sort}, so one false alarm in {1 + (look.windows or 0)} of "
                why += f"its {look.evaluations:.3g} looks a month is the least; {budget:g} a month are for all monitors"
            other = levels[second[monitor.name]] if monitor.name in second else 0.0
            found[monitor.name] = Levels(level=levels[k], look=other, why=why)
        return found

    def counted_days(self) -> int:
        """How many days back the monitors look that take columns as counts; 0 where none does."""
        counting = [m for m in self._spec.monitors if "edges" in self._checks[m.name].facts]
        return max((max(1, m.window.days) for m in counting), default=0)

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
        facts = {"failures": self._live.failures, **reference.facts, **facts, "task": self._task}
        if lacking := self._lacking(monitor, reference):
            nothing = Reading(name=monitor.check, value=None, note=lacking)
            return Evaluation(verdicts=(evaluation.unknown(monitor.check, nothing, monitor.name),))
        if check.against == "recent":
            facts["usual"] = self._usual(monitor, check, reference, facts)
        if check.evidence == "stream" and not monitor.limit.is_stated:
            return self._evaluate_stream(monitor, check, reference, facts, memory, now)
        if "earlier" in check.facts:
            facts["earlier"] = self._earlier(monitor, memory.get("since", ""), facts, now)
        window = self._window(monitor, check, facts, now)
        if check.against == "recent" and window.blocks:
            window = Window(window.blocks, window.roles, {**facts, "lately": self._lately(window, now)})
        bad_days = frozenset(memory.get("bad_days", ()))
        baseline = self._baseline(check, window, reference, bad_days, now)
        readings = evaluation.measure(check, window, baseline)
        if _looks_twice(monitor, check):
            return self._evaluate_both(monitor, reference, window, readings, facts, memory)
        if monitor.limit.is_stated:
            return evaluation.judge_limit(monitor.check, readings, monitor.limit, name=monitor.name)
        if check.evidence == "stated":
            judged = evaluation.judge_stated(check, monitor.check, readings, name=monitor.name)
            return _remember_bad_days(judged, window, memory)
        share = self.levels(reference, facts)[monitor.name]
        if share.why:
            return evaluation.judge_uncalibrated(check, monitor.check, readings, share.why, name=monitor.name)
        history = self._history(monitor, check, reference, facts)
        return evaluation.judge_window(check, monitor.check, readings, history, level=share.level, name=monitor.name)

    def _evaluate_both(
        self,
        monitor: Monitor,
        reference: Reference,
        window: Window,
        readings: Sequence[Reading],
        facts: Mapping[str, Any],
        memory: Mapping[str, Any],
    ) -> Evaluation:
        """Judge a window that moves on by less than its length together with its newest part, in one ranking: what is
        large is seen on its first day, what is small once a window is full of it."""
        check, share = self._checks[monitor.name], self.levels(reference, facts)[monitor.name]
        newest = Window(window.blocks[-_step(monitor) :], window.roles, window.facts)
        baseline = Window(reference.blocks, window.roles, window.facts)
        if why := _not_full(window, memory.get("first", "")):
            readings = [replace(reading, value=None, note=why) for reading in readings]
        both = [*readings, *evaluation.of_newest(evaluation.measure(check, newest, baseline))]
        if share.why:
            judged = evaluation.judge_uncalibrated(check, monitor.check, both, share.why, name=monitor.name)
            return evaluation.as_one(judged)
        history = self._history(monitor, check, reference, facts)
        judged = evaluation.judge_window(check, monitor.check, both, history, level=share.level, name=monitor.name)
        judged = evaluation.as_one(judged)
        failed, begin = memory.get("failed", ""), window.blocks[0].day.isoformat() if window.blocks else ""
        if any(verdict.grade is Grade.FAIL and verdict.calibrated for verdict in judged.verdicts):
            # The first day of what may be one alarm: its window passes by, however often it fails on the way.
            failed = failed if failed >= begin else newest.blocks[-1].day.isoformat()
        elif failed and begin <= failed:
            judged = evaluation.holding(judged, f"its window still has {failed}, when it failed")
        return replace(judged, memory={"failed": failed} if failed else {})

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
        share, usual = self.levels(reference, facts)[monitor.name], self._usual_days(monitor, check, reference, facts)
        through = memory.get("through")
        day = _begin(reference, newest) if through is None else datetime.fromisoformat(through).date()
        day += timedelta(days=through is not None)
        verdicts: tuple[Verdict, ...] = ()
        while day <= newest:
            window = self._live.answered_by(reference.version, day, facts)
            reading = evaluation.measure(check, window, None)[0]
            folded = evaluation.judge_stream(
                monitor.check,
                reading,
                promised=reference.promised.get(reading.name, math.nan),
                level=share.level,
                memory=memory,
                name=monitor.name,
                usual=usual,
                look=share.look,
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
        # Of a day with labels there are only the last answers for their keys, which is not what was answered. Checks
        # that compare with other days look at labels too where a day has them, those that compare with nothing do not.
        labelled = check.against != "nothing"
        return self._live.window(newest - timedelta(days=days), newest, facts, now, labelled=labelled)

    def _earlier(self, monitor: Monitor, since: str, facts: Mapping[str, Any], now: datetime) -> Sequence[Window]:
        """Mature windows since the version was first watched, disjoint, as long as the monitor's, in time order."""
        days = max(1, monitor.window.days)
        if not since:
            return []
        newest = self._live.last_mature_day(now)
        first = max(date.fromisoformat(since), newest - timedelta(days=EARLIER_DAYS - 1))
        count = ((newest - first).days + 1) // days
        ends = [newest - timedelta(days=days * back) for back in reversed(range(count))]
        return [self._live.labelled_window(end - timedelta(days=days - 1), end, facts) for end in ends]

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

    def _lately(self, window: Window, now: datetime) -> Sequence[Block]:
        """The days before a window, good and bad; more than are its baseline where days have few rows."""
        days, first = RECENT_DAYS, window.blocks[0].day
        recent = self._live.window(first - days * DAY, first - DAY, {}, now)
        rows = sorted(height for block in recent.blocks if (height := block.rows().height))
        if rows and rows[len(rows) // 2] < FEW_ROWS:
            days = min(MOST_DAYS, days * -(-FEW_ROWS // rows[len(rows) // 2]))
            recent = self._live.window(first - days * DAY, first - DAY, {}, now)
        return recent.blocks

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

    def _history(self, monitor: Monitor, check: Check, reference: Reference, facts: Mapping[str, Any]) -> History:
        key = (reference.version, monitor.name)
        if key not in self._histories:
            days, blocks, step = max(1, monitor.window.days), reference.blocks, _step(monitor)
            starts = _starts(monitor, len(blocks))
            roles, facts = self._live.roles(), {"earlier": (), **facts}
            baseline = Window(blocks, roles, facts)
            windows = [_whole(Window(blocks[i : i + days], roles, facts), self._task.output) for i in starts]
            found = evaluation.history_of(check, windows, baseline)
            if _looks_twice(monitor, check):
                parts = [Window(blocks[i + days - step : i + days], roles, facts) for i in starts]
                parts = [_whole(part, self._task.output) for part in parts]
                found |= evaluation.history_of_newest(check, parts, baseline)
            self._histories[key] = found
        return self._histories[key]

    def _usual_days(
        self, monitor: Monitor, check: Check, reference: Reference, facts: Mapping[str, Any]
    ) -> Usual | None:
        """What a stream read on each day of the reference that was answered without being fitted on; None without."""
        key = (reference.version, monitor.name)
        if key not in self._days:
            roles, measured = self._live.roles(), []
            for block in reference.blocks:
                [first, *_] = evaluation.measure(check, Window([block], roles, facts), None)
                measured += [first] if first.value is not None else []
            found = [(reading.value or 0.0, reading.rows) for reading in measured]
            means, rows = tuple(mean for mean, _ in found), tuple(count for _, count in found)
            self._days[key] = Usual(means=means, rows=rows) if found else None
        return self._days[key]


def _not_full(window: Window, first: str) -> str:
    """Why a window has fewer days than those of history: it began before anything was answered; empty where it did not.
    `first` is the day on which its monitor ran first, empty where that is now."""
    if not window.blocks or (first and window.blocks[0].day.isoformat() >= first) or window.blocks[0].rows().height:
        return ""
    return f"nothing was answered on {window.blocks[0].day}, when the window begins: it is not full yet"


def windows_in(monitor: Monitor, days: int) -> int:
    """How many windows of history so many days make for a monitor, were everything measured on each."""
    return len(_starts(monitor, days))


def _starts(monitor: Monitor, days: int) -> range:
    """Where windows of history begin among so many days; the last ends with them."""
    length, step = max(1, monitor.window.days), _step(monitor)
    return range((days - length) % step, days - length + 1, step)


def _step(monitor: Monitor) -> int:
    """By how many days the window of an evaluation lies behind that of the next; at most its length, so that windows of
    history leave no day out."""
    return max(1, min(monitor.every.days, monitor.window.days))


def _looks_twice(monitor: Monitor, check: Check) -> bool:
    """Whether a monitor judges the newest part of its window too: where it looks before its window has passed, at what
    is counted once, so that another window of it costs next to nothing."""
    is_counted = check.against == "reference" and check.evidence == "window" and "edges" in check.facts
    return is_counted and _step(monitor) < monitor.window.days and not monitor.limit.is_stated


_ANSWERED = (Role.OUTPUT, Role.PART)


def _whole(window: Window, output: str) -> Window:
    """The window without its answers where only some of its days have any: on fewer rows all looks farther away."""
    known = {block.remember(("answered", output), partial(_is_answered, output)) for block in window.blocks}
    if len(known - {None}) < 2:
        return window
    return Window(window.blocks, {n: role for n, role in window.roles.items() if role not in _ANSWERED}, window.facts)


def _is_answered(output: str, rows: pl.DataFrame) -> bool | None:
    if not rows.height:
        return None
    return output in rows.columns and rows[output].null_count() < rows.height


def _begin(reference: Reference, newest: date) -> date:
    """The first day of a stream: the newest, or where answers of before were told, those of the month since the
    reference."""
    if reference.until is None:
        return newest
    return max(reference.until + timedelta(days=1), newest - MONTH + timedelta(days=1))


def _remember_bad_days(judged: Evaluation, window: Window, memory: Mapping[str, Any]) -> Evaluation:
    """Keep the days on which a check failed out of its own baseline, or a fault would soon look normal. After as many
    days as the baseline is long, what lasts does count as normal."""
    days = [block.day.isoformat() for block in window.blocks]
    bad = [*memory.get("bad_days", ()), *(days if judged.verdicts and judged.verdicts[0].grade is Grade.FAIL else ())]
    return replace(judged, memory={"bad_days": list(dict.fromkeys(bad))[-RECENT_DAYS:]})
