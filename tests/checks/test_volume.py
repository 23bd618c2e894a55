from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp

from holdfast.checks.volume import CHANGE, LATER, UNLABELLED, Volume
from holdfast.core.blocks import block_bounds
from holdfast.core.evidence import Block, Grade, Role, Window
from holdfast.flow import evaluation
from holdfast.flow.days import blocks_of

ROLES = {"probability": Role.OUTPUT, "label": Role.LABEL}
HOUR = timedelta(hours=1)


def a_day(start, rows, *, labelled=1.0, delay=6.0, seed=0):
    """Rows of a day with labels `delay` hours later on average."""
    random = np.random.default_rng(seed)
    at = [start + 20 * HOUR * float(u) for u in random.random(rows)]
    known = [
        t + HOUR * float(d) for t, d in zip(at, np.sign(delay) * random.gamma(4, abs(delay) / 4, rows), strict=True)
    ]
    has = random.random(rows) < labelled
    return pl.DataFrame(
        {
            "event_at": at,
            "predicted_at": at,
            "label_known_at": [t if h else None for t, h in zip(known, has, strict=True)],
            "probability": random.random(rows),
            "label": [1.0 if h else None for h in has],
        },
        schema_overrides=dict.fromkeys(("event_at", "predicted_at", "label_known_at"), pl.Datetime("us", "UTC")),
    )


@pytest.fixture
def traffic(window):
    """`traffic(rows, **last)`: a window of one day after as many as stand before the last of `rows`."""

    def build(rows, mature_after=timedelta(days=2), **last):
        start = window([pl.DataFrame()]).blocks[0].start
        made = []
        for k, count in enumerate(rows):
            at = start + timedelta(days=k)
            frame = a_day(at, count, seed=k, **(last if k == len(rows) - 1 else {}))
            made.append(Block(at.date(), at, at + timedelta(days=1), lambda frame=frame: frame))
        facts = {"now": made[-1].end + mature_after, "mature_until": made[-1].end, "mature_after": mature_after}
        now, before = Window(made[-1:], ROLES, facts), Window(made[:-1], ROLES, facts)
        return {reading.name: reading for reading in Volume().measure(now, before)}

    return build


WEEK = [100, 110, 120, 110, 100, 40, 20]


def test_a_quiet_sunday_is_usual_and_a_quiet_monday_is_not(traffic):
    sunday = traffic([*WEEK, *WEEK, *WEEK])[CHANGE]
    assert sunday.value == pytest.approx(0.0)
    assert "20 rows; on the Sundays before there were 20 and 20" in sunday.note
    monday = traffic([*WEEK, *WEEK, 20])[CHANGE]
    assert monday.value == pytest.approx(np.log(100.5 / 20.5))
    assert "on the Mondays before there were 100 and 100" in monday.note


def test_a_holiday_is_seen_and_does_not_make_the_weeks_after_it_look_strange(traffic):
    holiday = [*WEEK, *WEEK, 30]
    assert traffic(holiday)[CHANGE].value > 1
    assert traffic([*holiday, *WEEK[1:], 100])[CHANGE].value == 0.0
    assert traffic([*holiday, *WEEK[1:], *WEEK, 100])[CHANGE].value == 0.0


def test_a_window_of_days_is_compared_with_whole_weeks(window):
    days = [pl.DataFrame({"probability": [0.5] * rows}) for rows in (*WEEK, *WEEK, *WEEK[:-1], 0)]
    whole = window(days, roles=ROLES)
    now, before = Window(whole.blocks[14:], ROLES), Window(whole.blocks[:14], ROLES)
    found = Volume().measure(now, before)[0]
    assert found.value == pytest.approx(np.log((sum(WEEK) + 0.5) / (sum(WEEK) - 20 + 0.5)))
    assert "no rows at all on 2013-04-21" in found.note


def test_days_before_the_first_answer_are_not_what_is_usual(traffic):
    first_days = [0] * 14
    for day in range(1, 15):
        found = traffic([*first_days, *(WEEK * 3)[:day]])[CHANGE]
        assert found.value is None, day
        assert "2 are needed to say what is usual" in found.note
    assert traffic([*first_days, *WEEK, *WEEK, 100])[CHANGE].value == 0.0


def test_a_day_without_rows_between_others_is_usual_or_not_like_any(traffic):
    assert traffic([*WEEK[:-1], 0, *WEEK[:-1], 0, *WEEK[:-1], 0])[CHANGE].value == 0.0
    assert traffic([*WEEK, *WEEK, 0])[CHANGE].value > 5


def test_a_rush_is_as_far_as_a_lull(traffic):
    assert traffic([*WEEK, *WEEK, 1000])[CHANGE].value == pytest.approx(np.log(1000.5 / 100.5))
    assert Volume().grade(traffic([*WEEK, *WEEK, 2000])[CHANGE])[0] is Grade.FAIL
    assert Volume().grade(traffic([*WEEK, *WEEK, 300])[CHANGE])[0] is Grade.PASS


def test_no_traffic_fails_even_uncalibrated_where_there_was_some_and_says_when(traffic):
    none = traffic([*WEEK, *WEEK, 0])[CHANGE]
    assert Volume().grade(none)[0] is Grade.FAIL
    assert "no rows at all on 2013-04-15" in none.note
    usual = traffic([*[50, 50, 50, 50, 50, 0, 0] * 2, 50, 50, 50, 50, 50, 0])[CHANGE]
    assert usual.value == 0.0


@pytest.mark.parametrize("rows", [[100], [100] * 13, [0] * 15])
def test_where_nothing_says_what_is_usual_it_is_unknown(traffic, rows):
    found = traffic(rows)[CHANGE]
    assert found.value is None
    assert "usual" in found.note or "none before" in found.note
    assert Volume().grade(found)[0] is Grade.UNKNOWN


def test_labels_that_lack_are_a_rise_with_the_usual_coverage_beside_it(traffic):
    found = traffic([200] * 15, labelled=0.3)[UNLABELLED]
    assert found.value == pytest.approx(0.7, abs=0.08)
    assert "have a label; usual are 100.0%" in found.note
    assert Volume().grade(found)[0] is Grade.FAIL
    assert traffic([200] * 15)[UNLABELLED].value == 0.0


def test_labels_that_come_later_are_shown_with_their_delay_curve(traffic):
    found = traffic([400] * 15, delay=40.0)[LATER]
    assert found.value > 0.8
    assert "within 1 d (100%)" in found.note
    assert "within 2 d (100%)" in found.note
    sooner = traffic([400] * 15, delay=2.0)[LATER]
    assert sooner.value < 0.01


def test_the_delay_is_the_one_sided_distance_of_scipy(traffic, window):
    start = window([pl.DataFrame()]).blocks[0].start
    days = [a_day(start + timedelta(days=k), 300, seed=k, delay=9.0 if k == 14 else 6.0) for k in range(15)]
    waited = [(d["label_known_at"] - d["event_at"]).dt.total_microseconds().to_numpy() for d in days]
    expected = ks_2samp(np.concatenate(waited[:14]), waited[14], alternative="greater", method="asymp").statistic
    found = traffic([300] * 15, mature_after=timedelta(days=9), delay=9.0)[LATER]
    assert found.value == pytest.approx(expected, abs=1e-9)


def test_labels_that_came_after_a_day_was_complete_do_not_count_as_usual(traffic):
    slow = traffic([300] * 15, mature_after=timedelta(hours=1), delay=6.0)
    assert slow[UNLABELLED].value < 0.1
    assert float(slow[UNLABELLED].note.split("%")[0]) < 95


def test_labels_known_before_the_answer_are_said(traffic):
    assert "were known before the answer was given" in traffic([300] * 15, delay=-3.0)[LATER].note


def test_without_labels_or_times_of_them_it_says_so(window, day):
    plain = window([day(k) for k in range(15)])
    found = {r.name: r for r in Volume().measure(Window(plain.blocks[-1:], ROLES), Window(plain.blocks[:-1], ROLES))}
    assert found[CHANGE].value == 0.0
    assert found[UNLABELLED].value is None
    facts = {"mature_until": plain.blocks[-1].end}
    now, before = Window(plain.blocks[-1:], ROLES, facts), Window(plain.blocks[:-1], ROLES, facts)
    found = {r.name: r for r in Volume().measure(now, before)}
    assert found[UNLABELLED].value == 0.0
    assert "nothing says when" in found[LATER].note


def test_a_key_that_is_answered_again_counts_once_and_rows_without_one_each(window):
    once = pl.DataFrame({"key": [f"{i}" for i in range(50)] + [None] * 10})
    days = window([*[once] * 14, pl.concat([once[:50]] * 3 + [once[50:]])], roles={"key": Role.KEY})
    found = Volume().measure(Window(days.blocks[14:], days.roles), Window(days.blocks[:14], days.roles))[0]
    assert (found.value, found.rows) == (0.0, 60)


def test_hours_are_compared_with_the_same_hour_of_the_week(window):
    start = window([pl.DataFrame()]).blocks[0].start
    blocks = []
    for k in range(24 * 15):
        at, rows = start + k * HOUR, 5 if k % 24 < 6 else 60
        frame = pl.DataFrame({"probability": [0.5] * rows})
        blocks.append(Block(at.date(), at, at + HOUR, lambda frame=frame: frame))
    [night] = [r for r in Volume().measure(Window(blocks[-22:-21], ROLES), Window(blocks, ROLES)) if r.name == CHANGE]
    assert night.value == 0.0


@pytest.mark.slow
def test_on_a_year_of_flights_days_alarm_at_their_level_and_a_lost_feed_is_seen(shared_flights):
    blocks = blocks_of("America/New_York", shared_flights)
    roles, check = {"label": Role.LABEL}, Volume()
    history = evaluation.history_of(check, [Window([block], roles) for block in blocks], Window(blocks, roles))[
        "volume_change", "rows"
    ]
    known = np.array(history)[~np.isnan(history)]
    assert known.size == 365 - 14, "every day after the first two weeks, whatever clocks do"
    assert np.median(known) < 0.05  # a day is within 5 % of its weekday
    half = blocks[200].rows().filter(pl.int_range(pl.len()) % 2 == 0)
    lost = Window([Block(blocks[200].day, blocks[200].start, blocks[200].end, lambda: half)], roles)
    reading = check.measure(lost, Window([*blocks[:200], *blocks[201:]], roles))[0]
    p = (1 + int((known >= reading.value).sum())) / (known.size + 1)
    assert p < 0.03


@pytest.fixture
def shared_flights(shared_data):
    return pl.read_parquet(shared_data("nycflights13/flights.parquet")).select(
        pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC").alias("event_at"),
        (pl.col("arr_delay") >= 15).cast(pl.Float64).alias("label"),
    )


def test_bounds_of_days_with_23_and_25_hours_are_days(window):
    for day in (date(2013, 3, 10), date(2013, 11, 3)):
        weeks = [day + timedelta(days=7 * k) for k in (-2, -1, 0)]
        blocks = [
            Block(d, *block_bounds("America/New_York", d), lambda: pl.DataFrame({"x": [1.0] * 40})) for d in weeks
        ]
        [reading, *_] = Volume().measure(Window(blocks[-1:], {}), Window(blocks[:-1], {}))
        assert reading.value == 0.0
