"""Whether blocks add up: none of them twice, as where a clock jumped back, and their columns of one type each."""

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from holdfast.core.evidence import Block, Window


def overlap(*windows: Window | None) -> str:
    """Why the blocks of one of these windows cannot be added up; empty when they can, in whatever order they stand."""
    for window in windows:
        found = _overlap(window.blocks) if window else ""
        if found:
            return found
    return ""


def mixed(frames: Sequence[pl.DataFrame]) -> str:
    """Which column comes in types that do not mix; empty where none does."""
    kinds: dict[str, set[str]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            if dtype.is_nested():
                kinds.setdefault(name, set()).add("lists")
            elif dtype != pl.Null:
                kinds.setdefault(name, set()).add("numbers" if dtype.is_numeric() else str(dtype))
    for name, found in kinds.items():
        if len(found) > 1:
            return f"the type of {name} changed within the window: {' and '.join(sorted(found))}"
    return ""


def _overlap(blocks: Sequence[Block]) -> str:
    for block in blocks:
        if block.end <= block.start:
            return f"the block of {block.day} ends before it begins: a clock jumped"
    ordered = sorted(blocks, key=lambda block: block.start)
    for one, other in pairwise(ordered):
        if other.start < one.end:
            days = f"{one.day} is there twice" if one.day == other.day else f"{one.day} and {other.day} overlap"
            return f"{days}, so that rows would count twice: a clock jumped, or a block was given again"
    return ""
