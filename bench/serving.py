"""How fast Holdfast answers beside its peers and beside what is possible here, on one machine in one run.

Every server serves the same LightGBM model (200 trees of 31 leaves, 13 numbers of real flights) and is asked for the
same 8,192 different rows in rotation, over connections that send the next request when they have their answer. The
servers take turns, and again for each repeat; figures are medians of the repeats, ratios are made within a repeat.
Holdfast's own variants differ by less than a machine does within minutes. So each stands side by side with Holdfast as
it comes, both are loaded in turns of a second, and ratios are made of two loads that follow each other.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from parts import peers
from parts.bodies import BINARY, DATA, INPUTS, PACKED, named
from parts.flights import COLUMNS, SYSTEM, Trained
from parts.servers import Server, floor, holdfast
from parts.turns import Turns, Workload
from parts.verdicts import summary, write_table

MAIN = (
    Workload(name="1 row, 16 connections", connections=16),
    Workload(name="1 row, 64 connections", connections=64),
    Workload(name="32 rows, 16 connections", connections=16, rows=32),
)
OWN = (
    Workload(name="1 row binary, 16 connections", connections=16, form="binary"),
    Workload(name="1 row binary, 64 connections", connections=64, form="binary"),
    Workload(name="32 rows binary, 16 connections", connections=16, rows=32, form="binary"),
)
"""What only Holdfast and bare HTTP are asked."""
NAMED = (Workload(name="1 row as named object, 16 connections", connections=16, form="named"),)
SPREAD = (Workload(name="1 row, 128 connections", connections=128, base_connections=64),)
"""As many connections for each of two workers, on average, as the base has for its one."""
VARIANTS: dict[str, tuple[dict[str, str | int], tuple[Workload, ...]]] = {
    "on ONNX Runtime": ({"state": "onnx"}, MAIN),
    "record none": ({"record": "none"}, MAIN[:2]),
    "record disk": ({"record": "disk"}, MAIN[1:2]),
    "record memory": ({"record": "memory"}, MAIN[1:2]),
    "2 workers": ({"workers": 2}, (*MAIN[1:2], *SPREAD)),
    "canary 10 %": ({"state": "canary"}, MAIN[:2]),
    "shadow": ({"state": "shadow"}, MAIN[:2]),
}


def main() -> None:
    """Measure and report."""
    given = _options()
    words = {word.strip() for word in given.only.split(",") if word.strip()}
    for word in words - {"floor", "holdfast", "variants", "peers", *VARIANTS}:
        raise SystemExit(f"--only knows no '{word}'; it knows floor, holdfast, variants, peers, {', '.join(VARIANTS)}")
    with TemporaryDirectory(prefix="holdfast-bench-") as temporary:
        directory = Path(given.work or temporary).resolve()
        print("preparing: the flights, the model, and the states of Holdfast", flush=True)
        trained = Trained(directory)
        matrix = trained.directory / "rows.npy"
        np.save(matrix, trained.matrix)
        turns = Turns(trained, seconds=given.seconds)
        plan = list(_plan(trained, words, given))
        for repeat in range(1, given.repeats + 1):
            turn = f"repeat {repeat} of {given.repeats}"
            for server, workloads, base in plan:
                if base is None:
                    turns.take(server, workloads, turn)
                else:
                    turns.take_beside(base, server, workloads, turn)
            if not words or "floor" in words:
                turns.parts(matrix)
        found = summary(turns, versions=peers.versions())
        print(found.text())
        if given.json:
            found.write(given.json)
            print(f"written: {given.json}")
        if given.docs:
            write_table(given.docs, found)
            print(f"written: {given.docs}")


def _plan(
    trained: Trained, words: set[str], given: argparse.Namespace
) -> Iterator[tuple[Server, tuple[Workload, ...], Server | None]]:
    """Servers in the order in which they take turns, each with what it is asked and what it stands beside."""
    places = {
        "packed": (f"/v2/models/{SYSTEM}/infer", PACKED),
        "named": (f"/predict/{SYSTEM}", named(COLUMNS)),
        "binary": (f"/v2/models/{SYSTEM}/infer", BINARY),
    }
    if not words or "floor" in words:
        yield floor("bare HTTP", "bare", trained, places), (*MAIN, *OWN), None
        yield floor("floor in one", "whole", trained, places), MAIN, None
    base = holdfast(trained, "Holdfast", places)
    if not words or "holdfast" in words:
        yield base, (*MAIN, *OWN, *NAMED), None
    for name, (settings, workloads) in VARIANTS.items():
        if not words or words & {name, "variants"}:
            if "state" in settings:
                trained.prepare(str(settings["state"]))
            yield holdfast(trained, f"Holdfast, {name}", places, **settings), workloads, base
    if not words or "peers" in words:
        for peer in peers.chosen(given.peers):
            yield peers.server(peer, trained, {"packed": PACKED, "data": DATA, "inputs": INPUTS}), MAIN, None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--docs", type=Path, help="write the table into that page")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load lasts, but 1 s side by side")
    parser.add_argument(
        "--only", default="", help="some of: floor, holdfast, variants (or the name of one), peers; all by default"
    )
    parser.add_argument("--peers", default="default", help="default, fast, all, or names: " + ", ".join(peers.PEERS))
    parser.add_argument("--work", help="keep feeds, models and states there, and use what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
