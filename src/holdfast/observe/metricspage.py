"""The page that Prometheus reads, in the text format 0.0.4, of all workers that live."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from holdfast.observe.metricfamilies import FAMILIES, Histogram, Process, Shown, Value
from holdfast.observe.metricsfiles import published
from holdfast.observe.tallies import Snapshot

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def metrics_page(own: Snapshot, run_dir: Path | None) -> bytes:
    """The page of a worker that just took, and published, a snapshot of itself, and of all that live beside it.

    Takes some milliseconds and reads files: not for the thread of the event loop.
    """
    name = own.workers[0].name
    others = [] if run_dir is None else list(published(run_dir, without=name))
    every = sorted([own, *others], key=lambda snapshot: snapshot.workers[0].name)
    return render([Shown(snapshot, _process(snapshot.workers[0].pid)) for snapshot in every])


def render(shown: Sequence[Shown]) -> bytes:
    """The page of these workers."""
    lines: list[str] = []
    for family in FAMILIES:
        lines += (f"# HELP {family.name} {_help(family.help)}", f"# TYPE {family.name} {family.kind}")
        for each in shown:
            worker = each.counted.workers[0].name
            for values, value in family.read(each):
                labels = _labels((*family.labels, "worker"), (*values, worker))
                lines += _samples(family.name, labels, value)
    return ("\n".join(lines) + "\n").encode()


def _samples(name: str, labels: str, value: Value) -> Iterable[str]:
    if not isinstance(value, Histogram):
        return (f"{name}{{{labels}}} {value}",)
    buckets = zip((*value.edges, "+Inf"), (*value.up_to, value.all), strict=True)
    return (
        *(f'{name}_bucket{{{labels},le="{edge}"}} {count}' for edge, count in buckets),
        f"{name}_sum{{{labels}}} {value.total}",
        f"{name}_count{{{labels}}} {value.all}",
    )


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _help(said: str) -> str:
    return said.replace("\\", r"\\").replace("\n", r"\n")


def _process(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            spent = process.cpu_times()
            return Process(
                spent.user + spent.system, process.memory_info().rss, process.num_fds(), process.create_time()
            )
    except (psutil.Error, OSError):
        return None
