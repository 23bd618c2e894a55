"""Builders of windows."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.core.evidence import Block, Role, Window

START = datetime(2013, 4, 1, tzinfo=UTC)
ROLES = {
    "temp": Role.INPUT,
    "wind": Role.INPUT,
    "carrier": Role.INPUT,
    "probability": Role.OUTPUT,
    "label": Role.LABEL,
    "latency_ms": Role.META,
}


def a_day(seed: int = 0, rows: int = 300) -> pl.DataFrame:
    """A day of flights as the lake gives it: calibrated answers, all labels there."""
    random = np.random.default_rng(seed)
    p = random.beta(2, 5, rows)
    return pl.DataFrame(
        {
            "temp": random.normal(60 + 6 * np.sin(seed), 5, rows),
            "wind": random.gamma(3, 3, rows),
            "carrier": random.choice(["AA", "B6", "UA"], rows),
            "probability": p,
            "label": (random.random(rows) < p).astype(float),
            "latency_ms": random.gamma(4, 1, rows),
        }
    )


@pytest.fixture
def day() -> Callable[..., pl.DataFrame]:
    return a_day


@pytest.fixture
def window() -> Callable[..., Window]:
    """`window(frames, facts, first=0, roles=ROLES)`: one block per frame, from day `first` on."""

    def build(
        frames: Sequence[pl.DataFrame],
        facts: Mapping[str, Any] | None = None,
        *,
        first: int = 0,
        roles: Mapping[str, Role] = ROLES,
    ) -> Window:
        blocks = []
        for k, frame in enumerate(frames):
            start = START + timedelta(days=first + k)
            blocks.append(Block(start.date(), start, start + timedelta(days=1), lambda frame=frame: frame))
        return Window(blocks, roles, facts)

    return build
