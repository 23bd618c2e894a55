"""Tables to measure drift on: 20 columns, 14 of numbers and 6 of categories, with nulls; and a wide one."""

from pathlib import Path

import numpy as np
import polars as pl

CATEGORIES = (2, 5, 12, 40, 200, 1_000)
"""How many different texts the six columns have."""
DIFFERENT = 5


def table(rows: int, *, seed: int, shift: float = 0.0) -> pl.DataFrame:
    """Even, bell-shaped, skewed, heavy-tailed and whole numbers, and texts; 5 % nulls in every third column."""
    random = np.random.default_rng(seed)
    numbers = {
        **{f"normal{k}": random.normal(shift, 1, rows) for k in range(5)},
        **{f"amount{k}": random.lognormal(shift, 1, rows) for k in range(3)},
        **{f"heavy{k}": random.standard_t(3, rows) + shift for k in range(2)},
        **{f"share{k}": random.random(rows) for k in range(2)},
        **{f"times{k}": random.poisson(4 + k * 100, rows) for k in range(2)},
    }
    texts = {
        f"kind{k}": pl.Series([f"value {i}" for i in range(several)]).gather(random.zipf(1.5, rows) % several)
        for k, several in enumerate(CATEGORIES)
    }
    whole = pl.DataFrame({**numbers, **texts})
    return whole.with_columns(
        pl.when(pl.lit(pl.Series(random.random(rows) < 0.05))).then(None).otherwise(pl.col(name)).alias(name)
        for name in whole.columns[::3]
    )


def write(folder: Path, rows: int, *, seed: int, shift: float = 0.0) -> str:
    """Such a table in files of a million rows; returns the pattern of their names."""
    folder.mkdir()
    for part in range(0, rows, 1_000_000):
        some = table(min(1_000_000, rows - part), seed=seed + part, shift=shift)
        some.write_parquet(folder / f"{part:010}.parquet", row_group_size=100_000)
    return str(folder / "*.parquet")


def write_wide(folder: Path, rows: int, columns: int, *, seed: int, rows_a_file: int = 60_000) -> str:
    """A table of many columns of single-precision numbers in files; returns the pattern of their names.

    Five files differ, the others are links to them: what is measured is not the disk, and it need not hold 12 GB.
    """
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(rows // rows_a_file):
        file = folder / f"{number:06}.parquet"
        if number < DIFFERENT:
            some = {f"x{k}": random.standard_normal(rows_a_file, dtype=np.float32) for k in range(columns)}
            pl.DataFrame(some).write_parquet(file, compression="uncompressed", row_group_size=rows_a_file)
        else:
            file.hardlink_to(folder / f"{number % DIFFERENT:06}.parquet")
    return str(folder / "*.parquet")
