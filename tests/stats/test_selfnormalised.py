import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import halfnorm

from holdfast.stats.selfnormalised import SCALE, fold, log_evidence, log_evidence_path


def folded(x, width=0.2):
    state: tuple[float, ...] = ()
    for each in x:
        state = fold(state, float(each), width)
    return state


@pytest.mark.parametrize("x", [[0.03, 0.01] * 10, [-0.03, 0.01] * 10, [0.5], [0.0], [-0.2] * 3])
def test_the_closed_form_is_the_mixture_integrated_over_a_half_normal(x):
    total, squares = sum(x), sum(each**2 for each in x)
    rho = SCALE * 0.2**2
    prior = halfnorm(scale=1 / math.sqrt(rho))
    at = max(0.0, total / (rho + squares))
    reach = 12 / math.sqrt(rho + squares)

    def wealth(bet):
        return prior.pdf(bet) * math.exp(bet * total - bet**2 * squares / 2)

    integral = quad(wealth, max(0.0, at - reach), at + reach, epsabs=0, epsrel=1e-10, limit=200)[0]
    assert math.exp(log_evidence(folded(x))) == pytest.approx(integral, rel=1e-7)


def test_no_symmetric_block_of_a_mean_on_the_nulls_side_is_expected_to_win_at_any_bet():
    # The proof stands in the docstring; here all means to 6 below and all distances to 12, in units of 1 / bet.
    mean, apart = np.meshgrid(np.linspace(-6, 0, 601), np.linspace(0, 12, 1201), indexing="ij")
    won = sum(np.exp(y - y**2 / 2) for y in (mean + apart, mean - apart)) / 2
    assert won.max() <= 1 + 1e-12
    assert won[:-1].max() < 1


def test_a_mean_beyond_the_null_is_expected_to_win():
    mean, apart = 0.1, 0.5
    assert sum(math.exp(y - y**2 / 2) for y in (mean + apart, mean - apart)) / 2 > 1


@pytest.mark.slow
@given(st.lists(st.floats(-1, 1), max_size=60), st.lists(st.floats(0, 2), min_size=60, max_size=60))
def test_whole_streams_give_what_folding_block_by_block_gives(x, widths):
    width = np.maximum.accumulate(widths)[: len(x)]
    path, state = log_evidence_path(np.array(x), width) if x else np.array([]), ()
    for i, each in enumerate(x):
        state = fold(state, each, float(width[i]))
        assert path[i] == pytest.approx(log_evidence(state), abs=1e-8)


@given(st.floats(1e-6, 1e6), st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_evidence_does_not_depend_on_the_unit_of_the_loss(unit, x):
    assert log_evidence(folded([unit * each for each in x], 0.2 * unit)) == pytest.approx(
        log_evidence(folded(x)), abs=1e-6
    )


@given(st.integers(1, 7), st.floats(1e-9, 1e6), st.floats(1e-6, 1e3))
def test_seven_blocks_never_decide_alone_whatever_they_show(blocks, x, width):
    assert log_evidence(folded([x] * blocks, width)) <= math.log(2 / math.sqrt(blocks)) + (blocks - 1) / 2 + 1e-9
    assert log_evidence(folded([x] * blocks, width)) < math.log(20)


def test_blocks_that_could_not_vary_are_no_evidence():
    assert folded([0.5, 0.5], width=0.0) == (0.0, 0.0, 0.0)
    assert log_evidence(folded([0.5, 0.5], width=0.0)) == pytest.approx(0.0, abs=1e-12)


def test_evidence_stays_finite_for_ever():
    for x in (0.1, -0.1):
        assert math.isfinite(log_evidence(folded([x] * 5000)))


@pytest.mark.slow
def test_streams_of_symmetric_blocks_below_the_null_too_are_wrong_no_more_often_than_stated():
    random = np.random.default_rng(1)
    for below in (0.0, 0.3, 1.0):
        x = random.standard_t(2, (1000, 150)) * random.lognormal(0, 1, (1000, 1)) - below
        wrong = (log_evidence_path(x, np.full_like(x, 10.0)) >= math.log(20)).any(axis=1).mean()
        assert wrong <= 0.05
