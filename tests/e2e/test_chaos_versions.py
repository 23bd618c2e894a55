"""Versions, splits and rollbacks under load: no request fails, and who answers was routed while it was answered."""

import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.inputs import read_columns
from holdfast.security.artifacts import load_model
from holdfast.serve.traffic import takes_canary

from .deployments import SIGNATURE, Deployment
from .load import Load, Reconciled, under_load

pytestmark = pytest.mark.slow


@dataclass(slots=True)
class Era:
    """Routes, from when they were written until every worker had acknowledged the next ones."""

    live: str
    canary: str
    share: float
    salt: str
    since_s: float
    until_s: float = float("inf")
    took_s: float = 0.0
    """From the writing to the last acknowledgement."""

    def answers(self, units: list[str]) -> list[str]:
        """The version that answers each unit."""
        takes = takes_canary(units, self.salt, self.share)
        return [self.canary if self.canary and took else self.live for took in takes]


async def switch(deployment: Deployment, load: Load, eras: list[Era], live: str, canary: str, share: float) -> None:
    """Route anew and wait until every worker has acknowledged it."""
    since_s = time.monotonic()
    generation = deployment.route(live, canary=canary, share=share)
    era = Era(live, canary, share, f"flights/rel-{generation}", since_s)
    await load.until(lambda: deployment.serves(generation), f"generation {generation}")
    now_s = time.monotonic()
    era.took_s = now_s - since_s
    eras[-1].until_s = now_s
    eras.append(era)


@pytest.mark.parametrize("switches", [50])
def test_who_answers_was_routed_then_and_no_request_fails(serve, switches):
    deployment = serve(workers=2)
    load, chance = Load(deployment.port), random.Random(5)
    eras = [Era("1", "", 0.0, "flights/rel-1", time.monotonic())]

    async def story():
        for _ in range(switches):
            await load.more(chance.randrange(1, 200))
            live, canary = chance.sample(["1", "2"], 2)
            share = chance.choice([0.0, 0.1, 0.5, 0.9])
            await switch(deployment, load, eras, live, canary if share else "", share)
        await load.more(200)

    under_load(load, story)
    assert (load.statuses.keys(), load.broken, load.turned_away) == ({200}, [], 0)
    assert all(asked.sends == 1 for asked in load.asked.values())
    answered, choices = assert_routed(load, eras)
    assert choices > answered // 10  # where only one version could have answered, it is that one
    assert_outputs(load, deployment.root)
    assert Reconciled(load, deployment.recorded()).problems == []
    took_ms = [era.took_s * 1e3 for era in eras[1:]]
    print(
        f"{switches} switches, {len(load.asked)} requests, {answered} rows, {choices} of them without a choice; "
        f"acknowledged by all after {statistics.median(took_ms):.0f} ms (median), {max(took_ms):.0f} ms (longest)"
    )


def assert_routed(load: Load, eras: list[Era]) -> tuple[int, int]:
    """Each row was answered by a version that was routed for its unit; returns rows, and rows without a choice."""
    rows = certain = 0
    for id, asked in load.asked.items():
        possible = [era for era in eras if era.since_s <= asked.answered_s and era.until_s >= asked.sent_s]
        units = [row["tailnum"] for row in asked.rows]
        choices = list(zip(*(era.answers(units) for era in possible), strict=True))
        for answer, versions in zip(asked.answers, choices, strict=True):
            assert answer["version"] in versions, f"{id}: {answer} while {possible} were routed"
            rows += 1
            certain += len(set(versions)) == 1
    return rows, certain


def assert_outputs(load: Load, root: Path) -> None:
    """Each output is that of the version that claims it."""
    rows = [row for asked in load.asked.values() for row in asked.rows]
    answers = [answer for asked in load.asked.values() for answer in asked.answers]
    by = np.array([answer["version"] for answer in answers])
    outputs = np.array([answer["probability"] for answer in answers])
    assert set(by) == {"1", "2"}
    columns = {column.name: [row[column.name] for row in rows] for column in SIGNATURE.columns}
    typed = read_columns(SIGNATURE, columns)
    expected = {}
    for version in ("1", "2"):
        at = root / "artifacts"
        bundle = (at / f"{version}.bundle").read_bytes()
        expected[version] = load_model(at / version, bundle, root / "keys" / "public.pem").predict(typed)
    assert np.mean(np.isclose(expected["1"], expected["2"], rtol=1e-4)) < 0.2  # else outputs would prove nothing
    np.testing.assert_allclose(outputs, np.where(by == "1", expected["1"], expected["2"]), rtol=1e-6)


def test_a_rollback_under_load_is_over_when_it_is_acknowledged(serve):
    deployment = serve(workers=2)
    load, took_s, turns = Load(deployment.port), [], 10

    async def story():
        for _ in range(turns):
            deployment.route("2")
            await load.until(lambda: deployment.serves(deployment.generation), "version 2")
            await load.more(50)
            since_s = time.monotonic()
            deployment.route("1")
            await load.until(lambda: deployment.serves(deployment.generation), "version 1 again")
            over_s = time.monotonic()
            took_s.append(over_s - since_s)
            await load.more(50)
            late = [
                asked
                for asked in load.asked.values()
                if asked.sent_s > over_s and asked.answers and {each["version"] for each in asked.answers} != {"1"}
            ]
            assert late == []

    under_load(load, story)
    assert (load.statuses.keys(), load.broken, load.turned_away) == ({200}, [], 0)
    took_ms = [each * 1e3 for each in took_s]
    print(f"{turns} rollbacks: {statistics.median(took_ms):.0f} ms (median), {max(took_ms):.0f} ms (longest)")
