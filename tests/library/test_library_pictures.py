"""Pictures and HTML: whole, readable without sight, nothing from elsewhere, and safe whatever columns are called."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast as hf
from holdfast.errors import DataError
from holdfast.library.columns import ColumnDrift
from holdfast.library.distributions import bars
from holdfast.library.pictures import Line, lines, page, table, text, ticks
from holdfast.stats.counting import count_series
from holdfast.stats.histogram import edges_of

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>alert('x')</script>\"&"


class Tags(HTMLParser):
    """Which elements stand in a page, and whether each that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(html: str) -> set[str]:
    parser = Tags()
    parser.feed(html)
    assert parser.open == []
    return parser.seen


def reports() -> list[object]:
    random = np.random.default_rng(0)
    p = random.random(600)
    rows = pl.DataFrame(
        {
            EVIL: p,
            "name": random.choice([EVIL, "b"], 600),
            "y": (random.random(600) < p).astype(int),
            "day": [f"2024-01-{1 + i // 20:02}" for i in range(600)],
        }
    )
    return [
        hf.drift(rows, rows.with_columns(pl.col(EVIL) + 0.5), time="day", window=1),
        hf.estimate_quality(rows, rows, score=EVIL, label="y", time="day"),
        hf.compare(rows, rows, label="y", score=EVIL, day="name", columns=["name"]),
    ]


@pytest.mark.parametrize("report", reports(), ids=lambda report: type(report).__name__)
def test_reports_escape_whatever_comes_from_data_and_load_nothing(report):
    html = report._repr_html_()
    assert "script" not in tags(html)
    assert not tags(html) & {"img", "link", "iframe", "object", "a", "foreignobject"}
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)
    assert "prefers-color-scheme:dark" in html


@pytest.mark.parametrize("report", reports(), ids=lambda report: type(report).__name__)
def test_pictures_are_whole_svg_with_title_and_description(report):
    names = [EVIL, "name"] if hasattr(report, "counted") else [None]
    for name in names:
        picture = report.plot(name) if name else report.plot()
        root = ElementTree.fromstring(picture._repr_svg_())
        assert root.tag == f"{SVG}svg"
        labelled = root.attrib["aria-labelledby"].split()
        assert [root.find(f"{SVG}{tag}").attrib["id"] for tag in ("title", "desc")] == labelled
        assert root.find(f"{SVG}desc").text
        assert root.attrib["role"] == "img"
        assert root.find(f".//{SVG}script") is None


def test_a_picture_is_saved_as_it_is_shown(tmp_path):
    picture = lines("title", "subtitle", ["a", "b"], [Line("x", np.array([1.0, 2.0]), "current")])
    picture.save(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8") == str(picture)
    with pytest.raises(DataError, match=r"saved as SVG: name the file picture\.svg"):
        picture.save(tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6)), max_size=12), st.booleans())
def test_lines_draw_every_value_that_there_is_and_stay_within_the_picture(values, dots):
    drawn = np.array(values, dtype=np.float64)
    picture = lines("t", "s", [str(i) for i in range(drawn.size)], [Line("x", drawn, "reference", dots)])
    root = ElementTree.fromstring(picture.svg)
    marks = root.findall(f".//{SVG}circle")
    if dots and np.isfinite(drawn).any():
        assert len(marks) == np.isfinite(drawn).sum() + 1  # and the legend's
    for mark in marks:
        assert 0 <= float(mark.attrib["cx"]) <= picture.width
        assert 0 <= float(mark.attrib["cy"]) <= picture.height


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(0, 5))
def test_bars_of_either_side_add_up_to_one(values, nulls):
    series = pl.Series([*values, *[None] * nulls], dtype=pl.Float64)
    edges = edges_of(np.array(values), quantiles=16, uniform=16)
    histogram = count_series(series, edges)
    drawn = bars(edges, histogram, histogram)
    assert drawn.before.sum() == pytest.approx(1)
    assert drawn.now.sum() == pytest.approx(1)
    assert len(drawn.labels) == drawn.before.size


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_ticks_lie_between_their_ends_and_are_few(one, other):
    low, high = min(one, other), max(one, other)
    found = ticks(low, high)
    slack = (high - low) * 1e-6 + 1e-9
    assert 1 <= len(found) <= 8
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_tables_have_headings_for_rows_and_columns():
    html = page("t", "s", [table("c", ("one", "two"), [(text("<b>"), "2")])])
    assert '<th scope="row">&lt;b&gt;</th>' in html
    assert '<th scope="col">one</th>' in html
    assert "<caption>c</caption>" in html


def test_a_column_says_itself_in_a_line():
    assert str(ColumnDrift(column="x", kind="number", verdict="moved", why="gap 0.2")) == "x: moved, gap 0.2"
