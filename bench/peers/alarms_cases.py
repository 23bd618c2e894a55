"""What the peers' files of the alarm benchmark share: simulated systems in, alarms and scores by day out.

A job is a folder: `job.json`, `reference.parquet` (column `system`) and `stream.parquet` (columns `system`, `case` and
`day`, counted from 0). Its answer, `answer.json`, is a list of findings. Needs pyarrow and numpy, nothing else.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq


class Job:
    """One job, as the benchmark wrote it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.facts = json.loads((self.folder / "job.json").read_text())
        self.inputs, self.output = self.facts["inputs"], self.facts["output"]
        self.texts, self.task = self.facts["texts"], self.facts["task"]
        self.settings = self.facts["settings"]
        """By detector: the threshold at which it need not look further."""
        self._reference = pq.read_table(self.folder / "reference.parquet")
        self._stream = pq.read_table(self.folder / "stream.parquet")

    def systems(self):
        """The systems' numbers."""
        return sorted(pc.unique(self._reference["system"]).to_pylist())

    def reference(self, system, most=0, seed=0):
        """The rows of a system's reference; at most so many, drawn at random."""
        found = self._reference.filter(pc.equal(self._reference["system"], system))
        if most and found.num_rows > most:
            found = found.take(np.sort(np.random.default_rng(seed).permutation(found.num_rows)[:most]))
        return found

    def cases(self, system):
        """Name and rows of each case of a system, in the order of days."""
        mine = self._stream.filter(pc.equal(self._stream["system"], system))
        for case in pc.unique(mine["case"]).to_pylist():
            yield case, mine.filter(pc.equal(mine["case"], case))

    def windows(self, rows, length):
        """The last day of each disjoint window of `length` days from the first day on, and its rows."""
        days = rows["day"].to_numpy()
        for start in range(int(days.min()), int(days.max()) - length + 2, length):
            inside = np.flatnonzero((days >= start) & (days < start + length))
            if len(inside):
                yield start + length - 1, rows.take(inside)

    def answer(self, findings):
        """Write what was found."""
        (self.folder / "answer.json").write_text(json.dumps(findings))


def finding(detector, system, case, *, scores=(), default=(), grid=None):
    """What one detector said of one case: a score by day (higher is worse), the days of its default alarms, and for
    detectors that forget after an alarm the days by parameter."""
    return {
        "detector": detector,
        "system": system,
        "case": case,
        "scores": [[int(day), float(score)] for day, score in scores],
        "default": [int(day) for day in default],
        "grid": grid or {},
    }


def main(detect):
    """Answer the job that the command line names, telling each system that is done."""
    job = Job(sys.argv[1])
    findings = []
    systems = job.systems()
    for k, system in enumerate(systems):
        findings += detect(job, system)
        print(f"{k + 1}/{len(systems)}", file=sys.stderr, flush=True)
    job.answer(findings)
