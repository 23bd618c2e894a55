"""The figures of the alarm benchmark as tables of its page, between comments that name them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rows = Sequence[Mapping[str, Any]]
PLACE = r"<!-- {name} -->.*?(?=\n## |\n<!-- end -->)"


def write(file: Path, false: Rows, delay: Rows) -> None:
    """Put both tables into a page, each from its comment to the next heading."""
    text = file.read_text()
    for name, table in (("false", false_tables(false)), ("delay", delay_tables(delay))):
        text = re.sub(PLACE.format(name=name), lambda _, new=f"<!-- {name} -->\n{table}\n": new, text, flags=re.DOTALL)
    file.write_text(text)


def false_tables(rows: Rows) -> str:
    """Alarms per month: Holdfast by monitor, then everybody by data set."""
    own = [row for row in rows if row["detector"] == "Holdfast"]
    lines = [
        "| Holdfast on | months | all incidents | calibrated | drift | quality | silence (stated) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in own:
        of = row["monitors"]
        shown = [f"{of.get(name, 0.0):.2f}" for name in ("drift", "quality", "silence (stated)")]
        calibrated = f"{row['calibrated']:.2f} ± {row['calibrated_se']:.2f}"
        lines.append(_line(row["data"], f"{row['months']:.0f}", _rate(row), calibrated, *shown))
    names = [row["data"] for row in own if any(_is_peer(r["detector"]) for r in rows if r["data"] == row["data"])]
    if names:
        lines += ["", _line("by default, a month (share of evaluations in alarm)", *names)]
        lines.append("|---" * (len(names) + 1) + "|")
        for detector in dict.fromkeys(row["detector"] for row in rows):
            found = {row["data"]: row for row in rows if row["detector"] == detector}
            cells = [f"{_rate(found[n])} ({found[n]['in_alarm']:.0%})" if n in found else "" for n in names]
            lines.append(_line(detector, *cells))
    return "\n".join(lines) + "\n\n± is one standard error over systems."


def delay_tables(rows: Rows) -> str:
    """Median delays per data set: one line a fault, one column a family of detectors."""
    return "\n\n".join(
        _of_data(data, [row for row in rows if row["data"] == data]) for data in dict.fromkeys(r["data"] for r in rows)
    )


def _of_data(data: str, rows: Rows) -> str:
    families = list(dict.fromkeys(_family(name) for row in rows for name in row["equal_rate"]))
    lines = [_line(f"{data}: fault", "Holdfast", "drift daily too", *families), "|---" * (len(families) + 3) + "|"]
    for row in rows:
        cells = []
        for family in families:
            equal, default = (
                min(_number(v) for name, v in row[kind].items() if _family(name) == family)
                for kind in ("equal_rate", "default")
            )
            cells.append(f"{_shown(equal)} ({_shown(default)})")
        own = (_shown(_number(row["holdfast_compared"])), _shown(_number(row["holdfast_daily_compared"])))
        lines.append(_line(row["fault"], *own, *cells))
    return "\n".join(lines)


def _family(detector: str) -> str:
    """Looks at days and at weeks are one family: the sooner counts."""
    return detector.removesuffix(", days").removesuffix(", weeks")


def _is_peer(detector: str) -> bool:
    return not detector.startswith(("Holdfast", "plain"))


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['total']:.2f} ± {row['total_se']:.2f}"


def _number(value: float | None) -> float:
    return np.inf if value is None else value


def _shown(value: float) -> str:
    return f"{value:g}" if np.isfinite(value) else "-"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
