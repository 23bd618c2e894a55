"""The serving benchmark: what is said of Holdfast's variants is made of loads side by side, and of nothing else."""

import time

import psutil
import pytest

from parts.servers import Up, cpu_s
from parts.turns import Figures, Pair, medians
from parts.verdicts import AT_16, AT_64, AT_128, Claim, of_variants

FIGURES = ("requests_per_s", "p99_ms", "worker_cpu_us")


def load(rate: float, *, p99_ms: float = 1.0) -> Figures:
    return dict(zip(FIGURES, (rate, p99_ms, 1e6 / rate), strict=True))


def pair(rate: float, base: float, *, waiting: float = 0.0) -> Pair:
    return Pair(server=load(rate), base=load(base), waiting=waiting)


def claims(variant: str, workload: str, pairs: list[Pair]) -> dict[str, Claim]:
    return {claim.what: claim for claim in of_variants({(f"Holdfast, {variant}", workload): pairs})}


def test_machine_that_grows_slower_changes_no_ratio_of_a_pair() -> None:
    pairs = [pair(0.96 * speed, speed) for speed in (60_000.0, 50_000.0, 30_000.0, 20_000.0)]
    found = claims("canary 10 %", AT_64, pairs)[f"with canary 10 % by without, {AT_64}"]
    assert [found.measured, found.least, found.most] == pytest.approx([0.96] * 3)
    assert found.is_met


def test_claim_is_the_median_of_all_pairs_with_the_least_and_the_most() -> None:
    pairs = [pair(rate, 100.0) for rate in (90.0, 97.0, 98.0, 99.0, 180.0)]
    found = claims("shadow", AT_16, pairs)[f"with shadow by without, {AT_16}"]
    assert [found.measured, found.least, found.most] == pytest.approx([0.98, 0.9, 1.8])


def test_processor_time_says_how_much_of_the_base_s_work_a_variant_does() -> None:
    found = claims("canary 10 %", AT_16, [pair(80.0, 100.0)])
    assert found[f"with canary 10 % by without, by the worker's processor time, {AT_16}"].measured == pytest.approx(0.8)


def test_what_recording_costs_is_the_base_by_the_variant_without_it() -> None:
    found = claims("record none", AT_64, [pair(100.0, 90.0)])
    assert found[f"requests a second by those without recording, {AT_64}"].measured == pytest.approx(0.9)
    assert found[f"the same by the worker's processor time, {AT_64}"].measured == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("workload", "more"), [(AT_64, ""), (AT_128, ", as many connections for each worker")], ids=["at 64", "at 128"]
)
def test_two_workers_are_worth_twice_the_base_s_time_by_theirs(workload: str, more: str) -> None:
    found = claims("2 workers", workload, [pair(90.0, 100.0)])
    what = f"two workers by one, as processor time allows{more}, {workload}"
    assert found[what].measured == pytest.approx(1.8)


def test_variant_without_pairs_has_no_claim() -> None:
    assert list(of_variants({})) == []


def test_server_that_works_while_it_should_wait_is_said() -> None:
    found = claims("shadow", AT_16, [pair(99.0, 100.0, waiting=share) for share in (0.1, 0.2, 0.3)])
    waiting = found["share of a core that the one of two takes which waits"]
    assert waiting.measured == 0.2
    assert waiting.is_met is False


def test_medians_are_of_each_figure_by_itself() -> None:
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 8.0}, {"a": 9.0, "b": 1.0}]) == {"a": 2.0, "b": 8.0}


def test_processor_time_of_a_server_is_that_of_its_processes() -> None:
    this = psutil.Process()
    before_s = time.process_time()
    found = cpu_s(Up(url="", root=this, began_s=0.0))[this.pid]
    assert before_s <= found <= time.process_time()
