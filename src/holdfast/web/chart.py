"""Lines as small inline SVG: no script, no style attribute, readable without colour."""

from collections.abc import Sequence
from html import escape

from holdfast.core.meaning import many
from holdfast.views import Day

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 12, 26


def loss_chart(days: Sequence[Day], promised: float | None, loss: str) -> str:
    """Loss per day against what was promised; days whose labels are not mature, or never came, are gaps."""
    known = [day.loss for day in days if day.loss is not None]
    if not known:
        return '<p class="quiet">No day has mature labels yet; the loss per day appears once labels have come.</p>'
    high = max([*known, promised or 0.0]) * 1.08 or 1.0
    low = min([*known, promised if promised is not None else high]) * 0.92

    def x(place: int) -> float:
        return LEFT + place * (WIDTH - LEFT - RIGHT) / max(1, len(days) - 1)

    def y(value: float) -> float:
        return TOP + (high - value) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(loss)} per day, newest {known[-1]:.4f}">',
        *(_level(level, y(level)) for level in (low, (low + high) / 2, high)),
    ]
    if promised is not None:
        parts.append(
            f'<line class="promised" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(promised):.1f}" y2="{y(promised):.1f}"/>'
        )
    parts += [_line([(x(i), y(value)) for i, value in stretch]) for stretch in _stretches(days)]
    for i, day in enumerate(days):
        if day.loss is not None:
            is_over = promised is not None and day.loss > promised
            said = f"{day.day:%d %b}: {loss} {day.loss:.4f}, {day.labelled:,} of {many(day.rows, 'row')} with a label"
            name = "dot over" if is_over else "dot"
            at = f'cx="{x(i):.1f}" cy="{y(day.loss):.1f}" r="3"'
            parts.append(f'<circle class="{name}" {at}><title>{escape(said)}</title></circle>')
    foot = HEIGHT - 6
    parts.append(f'<text x="{LEFT}" y="{foot}">{days[0].day:%d %b %Y}</text>')
    if len(days) > 1:
        parts.append(f'<text class="end" x="{WIDTH - RIGHT}" y="{foot}">{days[-1].day:%d %b %Y}</text>')
    return "".join([*parts, "</svg>"])


def _stretches(days: Sequence[Day]) -> list[list[tuple[int, float]]]:
    """Runs of days in a row that have a loss: a line is not drawn over a gap."""
    stretches: list[list[tuple[int, float]]] = [[]]
    for i, day in enumerate(days):
        if day.loss is None:
            stretches.append([])
        else:
            stretches[-1].append((i, day.loss))
    return [stretch for stretch in stretches if len(stretch) > 1]


def _line(points: Sequence[tuple[float, float]]) -> str:
    return '<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>'


def _level(level: float, at: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="end" x="{LEFT - 6}" y="{at + 4:.1f}">{level:.3f}</text>'
    )
