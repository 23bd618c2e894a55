from hypothesis import given
from hypothesis import strategies as st

from holdfast.engines.counting import next_unused


@given(st.integers(0, 300))
def test_the_next_id_follows_all_that_were_given(count):
    used = {f"run{i}" for i in range(1, count + 1)}
    assert next_unused("run", used.__contains__) == f"run{count + 1}"


@given(st.sets(st.integers(1, 50)))
def test_an_id_is_never_given_twice_even_where_others_left_gaps(numbers):
    used = {str(i) for i in numbers}
    assert next_unused("", used.__contains__) not in used
