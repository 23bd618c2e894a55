"""Which part of the path a moment belongs to, and what is left of it once the cost of measuring is taken off."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import thread_time
from typing import ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")

STAGES: Mapping[str, str] = {
    "decode": "head and body",
    "check": "type and check",
    "transform": "transform",
    "run": "run the model",
    "record": "record",
    "encode": "encode the answer",
    "rest": "event loop, counting",
}
"""Stages in the order in which a request passes them, and what people call them."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of requests took with the stopwatches on. Seconds of processor time."""

    requests: int
    cpu_s: float
    """Of the whole process."""
    stages_s: Mapping[str, float]
    """Of the thread, by stage."""
    switches: Mapping[str, int]
    """How often a stage was entered or left."""


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of requests took with nothing measured in between."""

    requests: int
    cpu_s: float
    wall_s: float


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the path: processor microseconds per request, and its share in [0, 1] of the whole."""

    stage: str
    us: float
    share: float


class Stopwatches:
    """Gives every moment of one thread to one stage: a stage that begins inside another interrupts it.

    Processor time of the thread is what counts, so neither waiting for a disk nor another process is in it.
    """

    def __init__(self, now_s: Callable[[], float] = thread_time) -> None:
        self._now_s = now_s
        self._stage = "rest"
        self._since_s = now_s()
        self._spent_s: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._switches: Counter[str] = Counter()

    def switch(self, stage: str) -> str:
        """Begin a stage; returns the one that it interrupts, to be switched back to."""
        now_s = self._now_s()
        before = self._stage
        self._spent_s[before] += now_s - self._since_s
        self._switches[before] += 1
        self._stage, self._since_s = stage, now_s
        return before

    def timed(self, stage: str, work: Callable[P, R]) -> Callable[P, R]:
        """The same work, within a stage."""

        def within(*args: P.args, **options: P.kwargs) -> R:
            before = self.switch(stage)
            try:
                return work(*args, **options)
            finally:
                self.switch(before)

        return within

    def begin(self) -> None:
        """Forget what was measured; from now on it counts."""
        self._spent_s = dict.fromkeys(STAGES, 0.0)
        self._switches.clear()
        self._since_s = self._now_s()

    def taken(self, requests: int, cpu_s: float) -> Taken:
        """What was measured since `begin`, for so many requests that took so much processor time."""
        self.switch(self._stage)
        return Taken(requests=requests, cpu_s=cpu_s, stages_s=dict(self._spent_s), switches=dict(self._switches))


def whole_us(plain: Sequence[Plain]) -> float:
    """Processor microseconds of one request: the median of the repeats."""
    return median(each.cpu_s / each.requests for each in plain) * 1e6


def stages_of(plain: Sequence[Plain], timed: Sequence[Taken]) -> tuple[Stage, ...]:
    """The stages of a request; together they are `whole_us` of it.

    Medians of the repeats. What the requests took longer with the stopwatches on is the cost of looking at them; it is
    taken off the stages by how often each was entered or left. What is not in a stage is the rest, other threads
    included; where the stages come to more than the whole, they are scaled down to it.
    """
    whole = whole_us(plain)
    looked = max(0.0, median(each.cpu_s / each.requests for each in timed) * 1e6 - whole)
    by_stage = {name: median(each.stages_s[name] / each.requests for each in timed) * 1e6 for name in STAGES}
    switches = {name: median(each.switches.get(name, 0) / each.requests for each in timed) for name in STAGES}
    of_one = looked / (sum(switches.values()) or 1.0)
    net = {name: max(0.0, us - of_one * switches[name]) for name, us in by_stage.items() if name != "rest"}
    inside = sum(net.values())
    scale = min(1.0, whole / inside) if inside else 1.0
    us = {name: value * scale for name, value in net.items()}
    us["rest"] = max(0.0, whole - sum(us.values()))
    return tuple(Stage(stage=name, us=us[name], share=us[name] / whole if whole else 0.0) for name in STAGES)
