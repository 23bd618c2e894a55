"""What drift of every column costs, Holdfast beside its peers and beside reading the rows at all.

    python bench/drift.py --json bench/results/drift.json
    python bench/drift.py --large 600 --json bench/results/drift-large.json
    python bench/drift.py --only accuracy --data FOLDER

Each contestant is a process of its own that reads the same Parquet files: wall and processor seconds and the peak of
its memory as the system counted them for that process, and `compute`, its own clock from the tables in memory to the
distances. Peers have environments of their own and run as they come. One that is not done within
--limit seconds is stopped; in the cases of --large, which takes their limit, peers also get 12 GB of memory at most.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from parts.accuracy import accuracy
from parts.figures import options, report
from parts.flights import NotAvailable
from parts.peers import ENVIRONMENTS, HERE, install
from parts.shared import DATA
from parts.tables import write, write_wide

OURS = ("scan", "holdfast")
PEERS = ("evidently", "nannyml", "alibi")
WANTED = {"evidently": 50.0, "nannyml": 15.0}
"""How many times our processor seconds a peer is expected to take, at least."""
MILLION = 1_000_000
PEERS_BYTES = 12 * 10**9
"""Address space of a peer in the large cases, so that it does not take the machine down with it."""
LAUNCH = """
import json, resource, subprocess, sys, time
if limit := int(sys.argv.pop(1)):
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
took = {"wall_s": time.perf_counter() - start, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
print(json.dumps({"code": done.returncode, "said": done.stdout, "complaints": done.stderr, "used": took}))
"""
"""Runs a contestant and says what it used. Small, because a process begins with the peak of the one that starts it."""


def main() -> None:
    """Measure and report."""
    given = options(__doc__, only="", large=0.0, limit=900.0, work="", data=str(DATA), rows=MILLION)
    words = [word.strip() for word in given.only.split(",") if word.strip()]
    for word in words:
        if word not in (*OURS, *PEERS, "accuracy"):
            raise SystemExit(f"--only knows no '{word}'; it knows {', '.join((*OURS, *PEERS))}, accuracy")
    figures: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="holdfast-drift-", dir=given.work or None) as temporary:
        folder = Path(temporary)
        chosen = [name for name in (*OURS, *PEERS) if not words or name in words]
        if chosen and given.large:
            figures += _large(folder, chosen, given.rows, given.large)
        elif chosen:
            figures += _compared(folder, chosen, given.rows, given.repeats, given.limit)
    if "accuracy" in words or not (words or given.large):
        figures += _accuracy(Path(given.data))
    report("drift", figures, given.json)


def _accuracy(data: Path) -> list[dict[str, Any]]:
    """What counting costs in accuracy on real tables, where they are there."""
    if not data.is_dir():
        print(f"accuracy: left out, there are no tables in {data}; say where they are with --data")
        return []
    return [{"case": "accuracy", **row} for row in accuracy(data)]


def _compared(folder: Path, names: Sequence[str], rows: int, repeats: int, limit: float) -> list[dict[str, Any]]:
    """20 columns, as many current as reference rows; the peers run once, ours as often as asked."""
    files = [write(folder / "reference", rows, seed=1), write(folder / "current", rows, seed=2, shift=0.02)]
    figures = []
    for name in names:
        runs = [_run(name, files, limit) for _ in range(repeats if name in OURS else 1)]
        figures.append(
            {"case": f"{rows:,} + {rows:,} rows, 20 columns", **min(runs, key=lambda run: run.get("cpu_s", 0.0))}
        )
        _tell(figures[-1])
    return figures + _ratios(figures)


def _ratios(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name = {one["contestant"]: one for one in figures}
    ours = by_name.get("holdfast")
    found = []
    for name, one in by_name.items():
        if ours and name != "holdfast" and "why" not in one:
            ratio = {"compute": one["compute_cpu_s"] / ours["compute_cpu_s"], "process": one["cpu_s"] / ours["cpu_s"]}
            verdict = {"wanted": WANTED[name], "met": ratio["compute"] >= WANTED[name]} if name in WANTED else {}
            found.append({"case": f"{name} by holdfast, processor time", **ratio, **verdict})
    return found


def _large(folder: Path, names: Sequence[str], rows: int, limit: float) -> list[dict[str, Any]]:
    """Ten times as many current rows, read in batches; and 3 million rows of 1,000 columns against themselves."""
    many = [write(folder / "reference", rows, seed=1), write(folder / "many", 10 * rows, seed=100)]
    figures = []
    for name in names:
        figures.append({"case": f"{rows:,} + {10 * rows:,} rows, 20 columns", **_run(name, many, limit, "lazy")})
        _tell(figures[-1])
    wide = write_wide(folder / "wide", 3 * rows, 1_000, seed=5)
    for name in names:
        figures.append(
            {"case": f"{3 * rows:,} rows, 1,000 columns", **_run(name, [wide, wide], limit, "lazy", "again")}
        )
        _tell(figures[-1])
    return figures


def _run(name: str, files: Sequence[str], limit: float, *words: str) -> dict[str, Any]:
    """One contestant in a process of its own. `why` says why there are no figures."""
    python = sys.executable
    if name in PEERS:
        try:
            install(name)
        except NotAvailable as why:
            return {"contestant": name, "why": str(why)}
        # They take folders rather than patterns.
        files = [str(Path(file).parent) for file in files]
        python = str(ENVIRONMENTS / name / "bin" / "python")
    argv = [python, "-P", str(HERE / f"drift_{name}.py"), *files, *(words if name in OURS else ())]
    memory = PEERS_BYTES if words and name in PEERS else 0
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCH, str(memory), *argv],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return {"contestant": name, "why": f"stopped at {limit:.0f} s"}
    told = json.loads(said)
    if told["code"]:
        complaint = [line for line in told["complaints"].splitlines() if line.strip()] or ["it said nothing"]
        return {"contestant": name, "why": f"failed: {complaint[-1][:200]}"}
    return {"contestant": name, **told["used"], **json.loads(told["said"].strip().splitlines()[-1])}


def _tell(figure: dict[str, Any]) -> None:
    said = figure.get("why") or f"{figure['cpu_s']:.2f} CPU s, {figure['wall_s']:.2f} s, {figure['peak_mb']:.0f} MB"
    print(f"{figure['case']}: {figure['contestant']}: {said}", flush=True)


if __name__ == "__main__":
    main()
