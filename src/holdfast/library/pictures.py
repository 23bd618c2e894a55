"""Pictures and tables for notebooks: SVG and HTML as text, light and dark, with nothing loaded from elsewhere.

Each picture has a title and a description for screen readers, and tells its sides apart by shape as well as by colour.
All text is escaped, since names of columns come from data.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.errors import DataError

FloatArray = npt.NDArray[np.float64]
Tone = Literal["reference", "current", "truth"]

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 74, 28
CROWDED = 120
"""Marks of a line from which on they are smaller."""
_LIGHT = (
    ".hf-card{fill:#ffffff;stroke:#d3d8de}.hf-ink{fill:#1a1f25}.hf-soft{fill:#535c67}.hf-axis{stroke:#c3c9d1}"
    ".hf-reference{fill:#8795a6;stroke:#5d6b7b}.hf-current{fill:#c04f12;stroke:#c04f12}"
    ".hf-truth{fill:#1f6f4a;stroke:#1f6f4a}"
)
_DARK = (
    ".hf-card{fill:#15191e;stroke:#3a424c}.hf-ink{fill:#eef1f4}.hf-soft{fill:#a8b1bc}.hf-axis{stroke:#454e59}"
    ".hf-reference{fill:#7d8b9c;stroke:#a3b0bf}.hf-current{fill:#f0894a;stroke:#f0894a}"
    ".hf-truth{fill:#5cc495;stroke:#5cc495}"
)
STYLE = (
    f"{_LIGHT}@media (prefers-color-scheme:dark){{{_DARK}}}"
    ".hf-t{font:12px system-ui,sans-serif}.hf-h{font:600 14px system-ui,sans-serif;stroke:none}"
    ".hf-line{fill:none;stroke-width:1.8}.hf-band{fill-opacity:.22;stroke:none}.hf-area{fill-opacity:.55;stroke:none}"
)
_PAGE = (
    ".hf-report{background:#ffffff;color:#1a1f25;border:1px solid #d3d8de;border-radius:6px;padding:12px 16px;"
    "font:14px/1.45 system-ui,sans-serif;overflow-x:auto}"
    ".hf-report h3{margin:0 0 4px;font-size:16px;color:inherit}.hf-report p{margin:4px 0;color:inherit}"
    ".hf-report table{border-collapse:collapse;margin:10px 0;width:auto;color:inherit;background:transparent}"
    ".hf-report caption{text-align:left;font-weight:600;padding:2px 0 6px;color:inherit;caption-side:top}"
    ".hf-report th,.hf-report td{padding:3px 10px 3px 0;text-align:left;vertical-align:middle;"
    "border-bottom:1px solid #d3d8de;background:transparent;color:inherit;font-variant-numeric:tabular-nums;"
    "max-width:34em;white-space:normal}"
    ".hf-report tr{background:transparent!important}.hf-report td:not(:last-child){white-space:nowrap}"
    ".hf-report th{font-weight:600}.hf-report .hf-broken,.hf-report .hf-moved,"
    ".hf-report .hf-worse{color:#a33f08;font-weight:600}"
    ".hf-report .hf-maybe{color:#7a5400}.hf-report .hf-unknown,.hf-report .hf-foot{color:#535c67}"
    "@media (prefers-color-scheme:dark){.hf-report{background:#15191e;color:#eef1f4;border-color:#3a424c}"
    ".hf-report th,.hf-report td{border-color:#3a424c}.hf-report .hf-broken,"
    ".hf-report .hf-moved,.hf-report .hf-worse{color:#f5a06d}"
    ".hf-report .hf-maybe{color:#e3bd62}.hf-report .hf-unknown,.hf-report .hf-foot{color:#a8b1bc}}"
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as SVG, which a notebook shows."""

    title: str
    description: str
    """What is to be seen, for who cannot see it."""
    width: int = WIDTH
    height: int = HEIGHT
    body: str
    """Elements of SVG, without those around them."""

    @property
    def svg(self) -> str:
        """The whole picture as one SVG element."""
        name = hashlib.sha256(f"{self.title}\0{self.description}\0{self.body}".encode()).hexdigest()[:10]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="hf-t{name} hf-d{name}" '
            f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}">'
            f'<title id="hf-t{name}">{escape(self.title)}</title>'
            f'<desc id="hf-d{name}">{escape(self.description)}</desc>'
            f'<style>{STYLE}</style><rect class="hf-card" x=".5" y=".5" width="{self.width - 1}" '
            f'height="{self.height - 1}" rx="6"/>{self.body}</svg>'
        )

    def save(self, path: str | Path) -> None:
        """Write the SVG to a file. Raises DataError for a name that promises another format."""
        if Path(path).suffix.lower() != ".svg":
            raise DataError(f"a picture is saved as SVG: name the file {Path(path).with_suffix('.svg').name}")
        Path(path).write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.svg


@dataclass(frozen=True)
class Line:
    """Values (n,) to be drawn, NaN where there is none."""

    name: str
    values: FloatArray
    tone: Tone
    dots: bool = False
    """Marks instead of a line: circles for the reference, squares for others."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to places along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        at = (value - self.low) / span if span > 0 else 0.5
        return round(self.start + (self.end - self.start) * at, 2)


def lines(
    title: str,
    subtitle: str,
    labels: Sequence[str],
    drawn: Sequence[Line],
    *,
    band: tuple[FloatArray, FloatArray] | None = None,
    rules: Sequence[tuple[float, str]] = (),
    least: float | None = None,
) -> Picture:
    """Lines or marks over labels (n,) in order, with a band between two lines and level rules."""
    around = [*band] if band else []
    every = np.concatenate([*(line.values for line in drawn), *around, [value for value, _ in rules]])
    every = every[np.isfinite(every)]
    if not every.size:
        return _framed(title, subtitle, said(HEIGHT / 2, "nothing could be measured", x=LEFT), "nothing to draw")
    low, high = float(every.min()) if least is None else least, float(every.max())
    y = Scale(low=low, high=high if high > low else low + 1.0, start=HEIGHT - BOTTOM, end=TOP)
    x = Scale(low=0.0, high=max(1.0, len(labels) - 1.0), start=LEFT + 6, end=WIDTH - RIGHT - 6)
    parts = [axis(y), *(_marks(line, x, y) for line in drawn if line.dots)]
    if band:
        parts.append(_band(*band, x, y))
    parts += [_rule(value, y) for value, _ in rules]
    if rules:
        parts.append(said(TOP - 13, "dashed: " + ", ".join(f"{name} {value:.4g}" for value, name in rules), x=16))
    parts += [_path(line, x, y) for line in drawn if not line.dots]
    parts += [_labels(labels, x), legend([(line.name, line.tone) for line in drawn])]
    return _framed(title, subtitle, "".join(parts), _told(labels, drawn))


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one width above each other."""
    parts, height = [], 0
    for picture in pictures:
        parts.append(f'<g transform="translate(0 {height})">{picture.body}</g>')
        height += picture.height
    return Picture(
        title=pictures[0].title,
        description=". ".join(picture.description for picture in pictures),
        width=pictures[0].width,
        height=height,
        body="".join(parts),
    )


def text(value: str, *, mark: str = "") -> str:
    """Text as HTML, with a class that colours it."""
    shown = escape(value)
    return f'<span class="hf-{mark.replace(" ", "-")}">{shown}</span>' if mark else shown


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first of each row is its heading. No head: no row of headings."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    headed = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f"<table><caption>{escape(caption)}</caption>{headed}<tbody>{body}</tbody></table>"


def page(title: str, summary: str, parts: Sequence[str], foot: Sequence[str] = ()) -> str:
    """A report: heading, summary, parts that are HTML already, and remarks."""
    below = "".join(f'<p class="hf-foot">{escape(line)}</p>' for line in foot)
    return (
        f'<div class="hf-report"><style>{STYLE}{_PAGE}</style><h3>{escape(title)}</h3><p>{escape(summary)}</p>'
        f"{''.join(parts)}{below}</div>"
    )


def share(value: float) -> str:
    """A share in [0, 1] in percent.

    >>> share(0.1234), share(0.0)
    ('12.3%', '0%')
    """
    return f"{value:.1%}" if value else "0%"


def said(y: float, words: str, *, x: float, anchor: str = "start", tone: str = "soft") -> str:
    """Words in a picture."""
    return f'<text class="hf-t hf-{tone}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def shortened(words: str, most: int) -> str:
    """Words cut to so many characters.

    >>> shortened("departure", 6)
    'depar…'
    """
    return words if len(words) <= most else words[: most - 1] + "…"


def axis(y: Scale, *, form: str = ".3g") -> str:
    """Lines across at round values, with the values."""
    parts = []
    for value in ticks(y.low, y.high):
        at = y(value)
        parts.append(f'<line class="hf-axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:g}" y2="{at:g}"/>')
        parts.append(said(at + 4, f"{value:{form}}", x=LEFT - 8, anchor="end"))
    return "".join(parts)


def legend(names: Sequence[tuple[str, Tone]]) -> str:
    """Which shape is which side, in a row below the title."""
    parts, x = [], float(WIDTH - RIGHT)
    for name, tone in reversed(names):
        x -= 6.6 * len(name)
        parts.append(said(TOP - 13, name, x=x))
        parts.append(_mark(x - 9, TOP - 17, tone))
        x -= 26
    return "".join(parts)


def heading(title: str, subtitle: str) -> str:
    """Title and subtitle at the top of a picture."""
    shown = escape(shortened(title, 72))
    return f'<text class="hf-h hf-ink" x="16" y="22">{shown}</text>' + said(40, shortened(subtitle, 95), x=16)


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two.

    >>> ticks(0.0, 1.0), ticks(0.0, 0.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0])
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next((factor for factor in (1, 2, 5) if span / (step * factor) <= 6), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _framed(title: str, subtitle: str, body: str, description: str) -> Picture:
    return Picture(
        title=f"{title}: {subtitle}", description=description, body=heading(title, subtitle) + body, height=HEIGHT
    )


def _told(labels: Sequence[str], drawn: Sequence[Line]) -> str:
    parts = []
    for line in drawn:
        known = np.flatnonzero(np.isfinite(line.values))
        if known.size:
            low, high = line.values[known].min(), line.values[known].max()
            where = f"{labels[int(known[0])]} to {labels[int(known[-1])]}"
            parts.append(f"{line.name}: {known.size} values from {low:.3g} to {high:.3g}, {where}")
    return "; ".join(parts)


def _mark(x: float, y: float, tone: Tone, size: float = 1.0) -> str:
    """A circle, diamond or square about a place."""
    r = 4 * size
    if tone == "reference":
        return f'<circle class="hf-reference" cx="{x:g}" cy="{y:g}" r="{0.8 * r:g}"/>'
    if tone == "truth":
        return f'<path class="hf-truth" d="M{x - r:g} {y:g}L{x:g} {y - r:g}L{x + r:g} {y:g}L{x:g} {y + r:g}Z"/>'
    return (
        f'<rect class="hf-current" x="{x - 0.7 * r:g}" y="{y - 0.7 * r:g}" width="{1.4 * r:g}" height="{1.4 * r:g}"/>'
    )


def _marks(line: Line, x: Scale, y: Scale) -> str:
    known = np.flatnonzero(np.isfinite(line.values))
    size = 1.0 if known.size <= CROWDED else 0.7
    return "".join(_mark(x(float(i)), y(float(line.values[i])), line.tone, size) for i in known.tolist())


def _path(line: Line, x: Scale, y: Scale) -> str:
    points = [(i, value) for i, value in enumerate(line.values.tolist()) if math.isfinite(value)]
    if len(points) == 1:
        return _marks(line, x, y)
    placed = [f"{x(float(i)):g} {y(value):g}" for i, value in points]
    # A line is broken where a value is missing.
    breaks = ["M", *("L" if after[0] == before[0] + 1 else "M" for before, after in pairwise(points))]
    d = "".join(move + place for move, place in zip(breaks, placed, strict=True))
    return f'<path class="hf-{line.tone} hf-line" style="fill:none" d="{d}"/>'


def _band(low: FloatArray, high: FloatArray, x: Scale, y: Scale) -> str:
    parts = []
    known = np.isfinite(low) & np.isfinite(high)
    for run in np.split(np.flatnonzero(known), np.flatnonzero(np.diff(np.flatnonzero(known)) > 1) + 1):
        if run.size == 1:
            i = int(run[0])
            at, top, end = x(float(i)), y(float(high[i])), y(float(low[i]))
            parts.append(
                f'<rect class="hf-current hf-band" x="{at - 2:g}" y="{top:g}" width="4" height="{end - top:g}"/>'
            )
        elif run.size:
            there = [f"{x(float(i)):g} {y(float(high[i])):g}" for i in run.tolist()]
            back = [f"{x(float(i)):g} {y(float(low[i])):g}" for i in reversed(run.tolist())]
            parts.append(f'<path class="hf-current hf-band" d="M{"L".join([*there, *back])}Z"/>')
    return "".join(parts)


def _rule(value: float, y: Scale) -> str:
    at = y(value)
    return (
        f'<line class="hf-reference" stroke-dasharray="5 4" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:g}" y2="{at:g}"/>'
    )


def _labels(labels: Sequence[str], x: Scale) -> str:
    if not labels:
        return ""
    last = len(labels) - 1
    places = {0: "start", last: "end"} if last else {0: "start"}
    if last > 3:
        places[last // 2] = "middle"
    return "".join(
        said(HEIGHT - 9, shortened(labels[i], 24), x=x(float(i)), anchor=anchor) for i, anchor in places.items()
    )
