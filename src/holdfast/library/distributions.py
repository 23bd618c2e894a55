"""Two distributions of one column as a picture, from their counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.library.pictures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Picture,
    Scale,
    axis,
    heading,
    legend,
    said,
    shortened,
    ticks,
)
from holdfast.stats.histogram import Edges, Histogram

FloatArray = npt.NDArray[np.float64]

BINS = 48
BARS = 24
"""Most distinct values that have a bar each."""
SHOWN = 12
"""Most texts that have a bar each."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """What is drawn of a column: k bars a side."""

    labels: list[str]
    before: FloatArray
    """Shares of the reference (k,)."""
    now: FloatArray
    """Shares of the current table (k,)."""
    span: tuple[float, float] | None = None
    """Where bars are cells of equal width: from where to where they reach."""


def distribution(column: str, edges: Edges, reference: Histogram, current: Histogram, *, subtitle: str) -> Picture:
    """The reference as filled bars and the current table as a line over them, each adding up to 1."""
    drawn = bars(edges, reference, current)
    labels, before, now = drawn.labels, drawn.before, drawn.now
    y = Scale(low=0.0, high=float(max(before.max(), now.max())), start=HEIGHT - BOTTOM, end=TOP)
    x = Scale(low=0.0, high=float(len(labels)), start=LEFT, end=WIDTH - RIGHT)
    body = heading(column, subtitle) + axis(y, form=".0%" if y.high >= 0.05 else ".1%")
    body += _area(before, x, y) + _steps(now, x, y) + _below(drawn, x)
    body += legend([("reference", "reference"), ("current", "current")])
    apart = int(np.abs(now - before).argmax())
    told = (
        f"shares of {column} in {len(labels)} cells; they differ most at {labels[apart]}: "
        f"{before[apart]:.1%} in the reference, {now[apart]:.1%} now"
    )
    return Picture(title=f"{column}: {subtitle}", description=told, body=body, height=HEIGHT)


def sketch(edges: Edges, reference: Histogram, current: Histogram, *, width: int = 120, height: int = 30) -> str:
    """The same without words, for a cell of a table; hidden from screen readers, as the row says it."""
    drawn = bars(edges, reference, current)
    before, now = drawn.before, drawn.now
    y = Scale(low=0.0, high=float(max(before.max(), now.max())), start=height - 1, end=2)
    x = Scale(low=0.0, high=float(before.size), start=0, end=width)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" aria-hidden="true" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">{_area(before, x, y)}{_steps(now, x, y)}</svg>'
    )


def bars(edges: Edges, reference: Histogram, current: Histogram) -> Bars:
    """What is drawn: texts or few distinct values one by one, other numbers in 48 cells of equal width.

    Equal cells span what the middle 99 % of both sides have; the rest is in the first and the last.
    """
    sides = [side.present / max(1, int(side.present.sum())) for side in (reference, current)]
    if edges.is_category:
        return _texts(edges, *sides)
    if edges.is_discrete and edges.cells <= BARS:
        labels = ["below", *(f"{cut:g}" for cut in edges.cuts[:-1]), "above"]
        return _used(labels, *sides)
    return _numbers(edges, *sides)


def _texts(edges: Edges, before: FloatArray, now: FloatArray) -> Bars:
    order = np.argsort(-(before + now)[1:-1], kind="stable")
    shown, rest = order[:SHOWN] + 1, order[SHOWN:] + 1
    labels = [edges.categories[i - 1] for i in shown.tolist()]
    pair = [np.append(side[shown], side[rest].sum() + side[-1]) for side in (before, now)]
    return _used([*labels, "(others)"], *pair)


def _used(labels: Sequence[str], before: FloatArray, now: FloatArray) -> Bars:
    """Without the cells that nobody has."""
    filled = before + now > 0
    shown = [label for label, one in zip(labels, filled, strict=True) if one]
    return Bars(labels=shown, before=before[filled], now=now[filled])


def _numbers(edges: Edges, before: FloatArray, now: FloatArray) -> Bars:
    cuts = np.asarray(edges.cuts)
    ends = [np.interp([0.005, 0.995], np.cumsum(side[:-1]), cuts) for side in (before, now)]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if not high > low:
        low, high = float(cuts[0]), float(cuts[-1])
    edges_ = np.linspace(low, high, BINS + 1)
    labels = [f"{value:.4g}" for value in (edges_[:-1] + edges_[1:]) / 2]
    return Bars(labels=labels, before=_binned(before, cuts, edges_), now=_binned(now, cuts, edges_), span=(low, high))


def _binned(share: FloatArray, cuts: FloatArray, edges: FloatArray) -> FloatArray:
    inside = np.interp(edges, cuts, np.cumsum(share[:-1]))
    inside[0], inside[-1] = 0.0, 1.0
    return np.diff(inside)


def _area(shares: FloatArray, x: Scale, y: Scale) -> str:
    base = y(0.0)
    drawn = [
        f'<rect class="hf-reference hf-area" x="{x(i) + 0.4:.2f}" y="{y(value):g}" '
        f'width="{max(0.6, x(i + 1) - x(i) - 0.8):.2f}" height="{base - y(value):.2f}"/>'
        for i, value in enumerate(shares.tolist())
    ]
    return "".join(drawn)


def _steps(shares: FloatArray, x: Scale, y: Scale) -> str:
    places = [f"{x(0):g} {y(0.0):g}"]
    for i, value in enumerate(shares.tolist()):
        places += [f"{x(i):g} {y(value):g}", f"{x(i + 1):g} {y(value):g}"]
    places.append(f"{x(shares.size):g} {y(0.0):g}")
    return f'<path class="hf-current hf-line" style="fill:none" d="M{"L".join(places)}"/>'


def _below(drawn: Bars, x: Scale) -> str:
    """Round values where bars are cells, else as many labels as there is room for."""
    if drawn.span is not None:
        low, high = drawn.span
        place = Scale(low=low, high=high, start=x.start, end=x.end)
        return "".join(said(HEIGHT - 9, f"{value:,.6g}", x=place(value), anchor="middle") for value in ticks(low, high))
    every = max(1, -(-len(drawn.labels) // 10))
    room = max(4, int(540 / 7 / max(1, len(drawn.labels) / every)))
    return "".join(
        said(HEIGHT - 9, shortened(label, room), x=x(i + 0.5), anchor="middle")
        for i, label in enumerate(drawn.labels)
        if i % every == 0
    )
