"""What the figures of the serving benchmark say: medians, ratios by floors, peers and variants, what was met."""

import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from parts.figures import machine
from parts.load import generator
from parts.turns import TURN_S, TURNS, Figures, Pairs, Turns, medians

OURS = "Holdfast"
AT_16, AT_64, AT_128 = "1 row, 16 connections", "1 row, 64 connections", "1 row, 128 connections"
MANY = "32 rows, 16 connections"
BINARY, BINARY_64, BINARY_MANY = (
    "1 row binary, 16 connections",
    "1 row binary, 64 connections",
    "32 rows binary, 16 connections",
)
TIMES = {
    "mosec": 4.0,
    "FastAPI + ONNX Runtime": 6.0,
    "MLServer in process": 15.0,
    "MLServer in process, as it comes": 15.0,
    "BentoML": 40.0,
    "BentoML, as it comes": 40.0,
}
"""How many times as many requests a second as a peer are wanted."""
_TABLE = re.compile(r"(<!-- measured: serving -->\n)(.*?)(<!-- end measured -->)", re.DOTALL)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wanted, and what was measured: the median with the least and the most.

    Over repeats; of Holdfast's variants over all pairs of loads, which were made side by side.
    """

    what: str
    measured: float
    least: float
    most: float
    unit: str
    wanted: float | None = None
    at_most: bool = False

    @property
    def is_met(self) -> bool | None:
        """None where nothing in particular is wanted."""
        if self.wanted is None:
            return None
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def text(self) -> str:
        """As a line."""
        sign = "at most" if self.at_most else "at least"
        wanted = f"  wanted: {sign} {self.wanted:g}" if self.wanted is not None else ""
        said = {None: "", True: "  met", False: "  NOT met"}[self.is_met]
        return f"{self.what}: {self.measured:.3g}{self.unit} ({self.least:.3g} to {self.most:.3g}){wanted}{said}"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run found."""

    seconds: float
    repeats: int
    pairs_a_repeat: int
    pair_seconds: float
    """How long each of the two loads of a pair lasts."""
    load: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    forms: Mapping[str, str]
    ours: Mapping[str, str]
    figures: list[dict[str, Any]]
    starts: Mapping[str, float]
    floor: Mapping[str, float]
    pairs: list[dict[str, Any]]
    """Of each of Holdfast's variants by the base beside it, every ratio."""
    claims: list[Claim]
    absent: Mapping[str, str]

    def text(self) -> str:
        """What was wanted and what is missing, one line each."""
        lines = [claim.text() for claim in self.claims]
        return "\n".join(lines + [f"not available: {what}: {why}" for what, why in self.absent.items()])

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        claims = [msgspec.to_builtins(claim) | {"met": claim.is_met} for claim in self.claims]
        found = {"benchmark": "serving", **msgspec.to_builtins(self), "claims": claims}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n")


def summary(turns: Turns, *, versions: Mapping[str, str]) -> Summary:
    """Medians and ratios of what was measured."""
    figures = [
        {"server": server, "workload": workload, **medians(found)}
        for (server, workload), found in turns.figures.items()
    ]
    return Summary(
        seconds=turns.seconds,
        pairs_a_repeat=TURNS,
        pair_seconds=TURN_S,
        repeats=max((len(found) for found in turns.figures.values()), default=0),
        load=generator(),
        machine=machine(),
        versions={title: version for title, version in versions.items() if title in turns.starts},
        forms=turns.forms,
        ours=turns.ours,
        figures=figures,
        starts={server: statistics.median(found) for server, found in turns.starts.items()},
        floor=medians(turns.floor) if turns.floor else {},
        pairs=[
            {"server": server, "workload": workload}
            | {figure: [pair.ratio(figure) for pair in found] for figure in ("requests_per_s", "worker_cpu_us")}
            for (server, workload), found in turns.pairs.items()
        ],
        claims=list(_claims(turns)),
        absent=turns.absent,
    )


def _claim(what: str, values: list[float], **more: Any) -> Iterator[Claim]:
    if values:
        yield Claim(
            what=what, measured=statistics.median(values), least=min(values), most=max(values), **({"unit": ""} | more)
        )


def _claims(turns: Turns) -> Iterator[Claim]:
    yield from _peers(turns)
    yield from _floors(turns)
    yield from of_variants(turns.pairs)
    ours = turns.figures.get((OURS, AT_16), [])
    yield from _claim("p99 at 16 connections", [one["p99_ms"] for one in ours], unit=" ms", wanted=1.5, at_most=True)
    yield from _claim("start to first answer", turns.starts.get(OURS, []), unit=" s", wanted=1.0, at_most=True)
    rss = [one["worker_rss_mb"] for one in ours]
    yield from _claim("memory of the worker", rss, unit=" MB", wanted=120.0, at_most=True)


def _ratio(turns: Turns, above: str, below: str, workload: str, figure: str = "requests_per_s") -> list[float]:
    """A figure of one server by that of another, in each repeat that has both."""
    pairs = zip(turns.figures.get((above, workload), []), turns.figures.get((below, workload), []), strict=False)
    return [a[figure] / b[figure] for a, b in pairs]


def _peers(turns: Turns) -> Iterator[Claim]:
    names = {server for server, _ in turns.figures if not server.startswith(OURS)} - {"bare HTTP", "floor in one"}
    for peer in sorted(names, key=lambda name: (name not in TIMES, name)):
        for workload in (AT_16, AT_64, MANY):
            wanted = None if workload == MANY else TIMES.get(peer)
            values = _ratio(turns, OURS, peer, workload)
            yield from _claim(f"requests a second by those of {peer}, {workload}", values, unit=" times", wanted=wanted)
        values = _ratio(turns, peer, OURS, AT_16, "cpu_us")
        yield from _claim(f"processor time of {peer} by ours, {AT_16}", values, unit=" times")


def _floors(turns: Turns) -> Iterator[Claim]:
    """The summed floor is bare HTTP under that workload, plus decoding, running and encoding by themselves."""
    for workload, part, wanted in (
        (AT_16, "all_1_us", None),
        (AT_64, "all_1_us", 0.75),
        (MANY, "all_32_us", None),
        (BINARY, "binary_all_1_us", None),
        (BINARY_64, "binary_all_1_us", 0.85),
        (BINARY_MANY, "binary_all_32_us", None),
    ):
        summed = [bare + one[part] for bare, one in _with_parts(turns, "bare HTTP", workload, "cpu_us")]
        ours = turns.figures.get((OURS, workload), [])
        shares = [one["requests_per_s"] * us / 1e6 for one, us in zip(ours, summed, strict=False)]
        yield from _claim(f"share of the summed floor, {workload}", shares, wanted=wanted)
        shares = [us / one["worker_cpu_us"] for one, us in zip(ours, summed, strict=False)]
        yield from _claim(f"share of the summed floor by processor time, {workload}", shares)
        yield from _claim(
            f"share of the floor in one server, {workload}", _ratio(turns, OURS, "floor in one", workload)
        )
    for workload, part, wanted in ((MANY, "run_32_us", 0.85), (BINARY_MANY, "run_32_us", 0.85)):
        shares = [rate * one[part] / 1e6 for rate, one in _with_parts(turns, OURS, workload, "requests_per_s")]
        yield from _claim(f"share of ONNX Runtime by itself, {workload}", shares, wanted=wanted)


def _with_parts(turns: Turns, server: str, workload: str, figure: str) -> list[tuple[float, Figures]]:
    found = turns.figures.get((server, workload), [])
    return [(one[figure], parts) for one, parts in zip(found, turns.floor, strict=False)]


def of_variants(pairs: Pairs) -> Iterator[Claim]:
    """What each of Holdfast's variants costs or brings, by the pairs of loads made side by side with the base."""

    def by_base(what: str, variant: str, workload: str, figure: str = "requests_per_s", **more: Any) -> Iterator[Claim]:
        values = [pair.ratio(figure) for pair in pairs.get((f"{OURS}, {variant}", workload), [])]
        return _claim(f"{what}, {workload}", values, **more)

    def of_base(
        what: str, variant: str, workload: str, figure: str = "requests_per_s", *, times: float = 1.0, **more: Any
    ) -> Iterator[Claim]:
        values = [times / pair.ratio(figure) for pair in pairs.get((f"{OURS}, {variant}", workload), [])]
        return _claim(f"{what}, {workload}", values, **more)

    same = "the same by the worker's processor time"
    for workload in (AT_16, AT_64, MANY):
        yield from of_base("on the runtime chosen by on ONNX Runtime", "on ONNX Runtime", workload, unit=" times")
        yield from by_base(same, "on ONNX Runtime", workload, "worker_cpu_us", unit=" times")
    for workload in (AT_16, AT_64):
        yield from of_base("requests a second by those without recording", "record none", workload, wanted=0.85)
        yield from by_base(same, "record none", workload, "worker_cpu_us")
        yield from of_base("p99 by that without recording", "record none", workload, "p99_ms", wanted=1.5, at_most=True)
    yield from by_base("`disk` by `process`", "record disk", AT_64, wanted=0.5)
    allows = "two workers by one, as processor time allows"
    for what, workload in ((allows, AT_64), (f"{allows}, as many connections for each worker", AT_128)):
        yield from of_base(what, "2 workers", workload, "worker_cpu_us", times=2.0, wanted=1.6)
    yield from by_base("two workers by one", "2 workers", AT_64)
    for variant, wanted in (("canary 10 %", 0.95), ("shadow", 0.97)):
        for workload in (AT_16, AT_64):
            what = f"with {variant} by without"
            yield from by_base(what, variant, workload, wanted=wanted)
            yield from of_base(f"{what}, by the worker's processor time", variant, workload, "worker_cpu_us")
    waiting = [pair.waiting for found in pairs.values() for pair in found]
    yield from _claim("share of a core that the one of two takes which waits", waiting, wanted=0.05, at_most=True)


def write_table(page: Path, found: Summary) -> None:
    """Write the tables into a page, between ``<!-- measured: serving -->`` and ``<!-- end measured -->``."""
    before = page.read_text(encoding="utf-8")
    if not _TABLE.search(before):
        raise SystemExit(f"{page} has no <!-- measured: serving --> with its <!-- end measured -->")
    text = "\n\n".join(_tables(found))
    page.write_text(_TABLE.sub(lambda match: f"{match[1]}\n{text}\n\n{match[3]}", before), encoding="utf-8")


def _tables(found: Summary) -> Iterator[str]:
    by = {(one["server"], one["workload"]): one for one in found.figures}
    yield (
        f"{found.load}; {found.machine['cores']} cores; median of {found.repeats} runs of {found.seconds:g} s. "
        f"Holdfast serves the model with its runtime `{found.ours['runtime']}`. Of its variants each run is "
        f"{found.pairs_a_repeat} loads of {found.pair_seconds:g} s, in turn with as many of a Holdfast beside it."
    )
    head = [
        "server",
        "requests/s",
        "p50 / p99 ms",
        "CPU µs a request",
        "requests/s at 64",
        "32-row rows/s",
        "start s",
        "RSS MB",
    ]
    rows = []
    for server in dict.fromkeys(one["server"] for one in found.figures):
        a, b, c = (by.get((server, workload)) for workload in (AT_16, AT_64, MANY))
        version = found.versions.get(server, "")
        rows.append(
            [
                f"{server} {version}".strip(),
                _cell(a, lambda one: f"{one['requests_per_s']:,.0f}"),
                _cell(a, lambda one: f"{one['p50_ms']:.2f} / {one['p99_ms']:.2f}"),
                _cell(a, lambda one: f"{one['cpu_us']:.0f}"),
                _cell(b, lambda one: f"{one['requests_per_s']:,.0f}"),
                _cell(c, lambda one: f"{one['requests_per_s'] * 32:,.0f}"),
                f"{found.starts[server]:.2f}",
                _cell(a, lambda one: f"{one['rss_mb']:.0f}"),
            ]
        )
    yield _markdown(head, rows)
    told = {None: "", True: "yes", False: "no"}
    wanted = [
        [
            claim.what,
            f"{claim.measured:.3g}{claim.unit}",
            f"{claim.least:.3g} to {claim.most:.3g}",
            "" if claim.wanted is None else f"{'at most' if claim.at_most else 'at least'} {claim.wanted:g}",
            told[claim.is_met],
        ]
        for claim in found.claims
    ]
    yield _markdown(["what", "median", "least to most", "wanted", "met"], wanted)
    if found.absent:
        yield "\n".join(f"- Not available: {what}: {why}" for what, why in found.absent.items())


def _cell(figures: dict[str, Any] | None, shown: Callable[[dict[str, Any]], str]) -> str:
    return "" if figures is None else shown(figures)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
