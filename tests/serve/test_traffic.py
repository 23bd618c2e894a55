import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.serve.traffic import place_of, takes_canary

units = st.lists(st.text(max_size=12), max_size=40)


@settings(deadline=None)
@given(units=units, salt=st.text(max_size=100), share=st.floats(0, 1))
def test_many_units_are_split_as_each_one_alone(units, salt, share):
    split = takes_canary(units, salt, share)
    assert split.tolist() == [place_of(unit, salt) < share for unit in units]


@given(units=units, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_growing_share_only_adds_units(units, shares):
    small, large = sorted(shares)
    assert not (takes_canary(units, "r1", small) & ~takes_canary(units, "r1", large)).any()


@settings(max_examples=20, deadline=None)
@given(salt=st.text(max_size=20), share=st.floats(0.05, 0.95))
def test_the_share_of_units_is_the_one_asked_for(salt, share):
    # 4000 independent units: five standard deviations of a binomial share.
    found = takes_canary([f"N{i}" for i in range(4000)], salt, share).mean()
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / 4000)


def test_two_releases_split_independently():
    units = [f"N{i}" for i in range(4000)]
    both = takes_canary(units, "flights/r1", 0.5) & takes_canary(units, "flights/r2", 0.5)
    assert abs(both.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_the_place_of_a_unit_never_changes():
    # Stays as it is for ever: a change would move units between versions in the middle of a release.
    assert round(place_of("N14228", "flights/r1"), 6) == 0.116726


def test_no_share_and_all_of_it_need_no_hash():
    assert not takes_canary(["a", "b"], "r1", 0.0).any()
    assert takes_canary(["a", "b"], "r1", 1.0).all()
