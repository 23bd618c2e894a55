"""Which cell a number falls into, looked up instead of searched for, with the same answer for every float.

A grid maps each number to a small integer by a function that never decreases, so all numbers of a slot lie between
those of its neighbours. A slot with no cut in it belongs to one cell; with one cut in it, a comparison decides; with
more, a binary search does, for the numbers of that slot only. As the function is the same for cuts and numbers and
rounding never turns an order round, equality with the search is exact, not approximate.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BLOCK = 16_384
"""Numbers looked up at once: the arrays between two steps then stay in the processor's cache."""
FEW = 512
"""With fewer numbers a search costs less than the steps of a look-up."""
SLOTS_PER_CUT, MOST_SLOTS = 16, 65_536
SLOTS_PER_CUT_SQUASHED = 64
CROWDED = 0.0005
"""How crowded (`_crowding`) even slots may be before a grid for heavy tails is tried."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells between some cuts (m,), strictly increasing and finite: 0 is below, 1 to m - 1 inside, m above.

    Cells are ``[cuts[i], cuts[i + 1])``, the last one closed. Built once for some cuts (0.1 to 3 ms, 17 bytes a slot).
    """

    cuts: FloatArray
    """With the last one moved up by one float, so that ``x >= cut`` closes the last cell."""
    centre: float
    scale: float
    squashed_to: int
    """Where above 0, this many slots are even in y / (1 + |y|) instead of in y = (x - centre) scale: for heavy tails
    on either side."""
    before: IntArray
    """Cuts in earlier slots, (slots,)."""
    first: FloatArray
    """The first cut of a slot, inf where it has none, (slots,)."""
    crowded: npt.NDArray[np.bool_] | None
    """Slots with two cuts or more, (slots,); None where there is none."""

    def count(self, values: FloatArray) -> tuple[IntArray, int]:
        """Numbers in each cell (m + 1,), and how many were NaN. Values (n,), any order, infinities allowed."""
        cells, nans = np.zeros(self.cuts.size + 1, dtype=np.int64), 0
        is_searched = values.size < FEW or not self.before.size
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            isnan = np.isnan(block)
            if missing := int(np.count_nonzero(isnan)):
                block = block[~isnan]
                nans += missing
            found = self.cuts.searchsorted(block, side="right") if is_searched else self._looked_up(block)
            cells += np.bincount(found, minlength=cells.size)
        return cells, nans

    def _looked_up(self, block: FloatArray) -> IntArray:
        slot = self._slots(block)
        found = self.before.take(slot, mode="clip")
        found += block >= self.first.take(slot, mode="clip")
        if self.crowded is not None:
            several = np.flatnonzero(self.crowded.take(slot, mode="clip"))
            if several.size:
                found[several] = np.searchsorted(self.cuts, block[several], side="right")
        return found

    def _slots(self, block: FloatArray) -> IntArray:
        # Every step never decreases in floating point either; a quotient of two rounded terms would not do.
        low, high = self.cuts[0], self.cuts[-1]
        y: FloatArray = np.maximum(block, low)
        np.minimum(y, high, out=y)
        y -= self.centre
        y *= self.scale
        if self.squashed_to:
            size = np.abs(y)
            size += 1.0
            np.divide(1.0, size, out=size)
            np.subtract(1.0, size, out=size)
            np.copysign(size, y, out=y)
            y += 1.0
            y *= self.squashed_to / 2
        return y.astype(np.int64)


def grid_of(cuts: FloatArray) -> Grid:
    """The grid of some cuts: even, or squashed where even slots would hold many cuts each.

    >>> grid_of(np.array([0.0, 1.0, 2.0])).count(np.array([-1.0, 0.0, 0.5, 2.0, 9.0, np.nan]))
    (array([1, 2, 1, 1]), 1)
    """
    closed = np.array(cuts, dtype=np.float64)
    closed[-1] = math.nextafter(closed[-1], math.inf)
    # As Python floats: a width too large for one is inf there, without a warning.
    width = float(cuts[-1]) - float(cuts[0])
    # Steps of a range so wide or so narrow would overflow or lose all order: these are searched.
    if not 1e-290 < width < 1e290 or not np.isfinite(closed[-1]):
        return _tables(closed, 0.0, 0.0)
    slots = min(SLOTS_PER_CUT * closed.size, MOST_SLOTS)
    best = _tables(closed, float(closed[0]), slots / width)
    if _crowding(best) <= CROWDED:
        return best
    slots = min(SLOTS_PER_CUT_SQUASHED * closed.size, MOST_SLOTS)
    for centre in closed[[0, closed.size // 8, closed.size // 4, closed.size // 2, 3 * closed.size // 4]]:
        away = np.sort(np.abs(closed - centre))
        for reach in away[[closed.size // 8, closed.size // 4]]:
            if width < 1e12 * reach:
                best = min(best, _tables(closed, float(centre), float(1.0 / reach), slots), key=_crowding)
    return best


def _tables(closed: FloatArray, centre: float, scale: float, squashed_to: int = 0) -> Grid:
    nothing = np.zeros(0, dtype=np.int64)
    grid = Grid(closed, centre, scale, squashed_to, nothing, np.zeros(0), None)
    if not scale:
        return grid
    slot = grid._slots(closed)
    inside = np.bincount(slot)
    before = np.cumsum(inside) - inside
    first = np.full(inside.size, np.inf)
    has = inside > 0
    first[has] = closed[before[has]]
    crowded = inside > 1
    return Grid(closed, centre, scale, squashed_to, before, first, crowded if crowded.any() else None)


def _crowding(grid: Grid) -> float:
    """How likely two cuts are to share a slot with more than one cut in it, in [0, 1].

    It stands for the share of numbers that have to be searched, which the cuts alone do not tell: a crowd of cuts is
    where the many values are.
    """
    if grid.crowded is None:
        return 0.0
    inside = np.diff(grid.before, append=grid.cuts.size)[grid.crowded]
    return float(np.square(inside / grid.cuts.size).sum())
