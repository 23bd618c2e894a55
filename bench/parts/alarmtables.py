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
    for name, table in (("false", false_tables(false)), ("delay", delay_tables(at_equal_rates(false, delay)))):
        text = re.sub(PLACE.format(name=name), lambda _, new=f"<!-- {name} -->\n{table}\n": new, text, flags=re.DOTALL)
    file.write_text(text)


def at_equal_rates(false: Rows, delay: Rows) -> list[dict[str, Any]]:
    """The rows of delays without those of detectors that alarm falsely oftener than Holdfast even at their least eager
    parameter, by data set: they cannot be compared at an equal rate."""
    own = {row["data"]: row["total"] for row in false if row["detector"] == "Holdfast"}
    too_often = {
        (row["data"], row["detector"])
        for row in false
        if row.get("rate_at_threshold") is not None and row["rate_at_threshold"] > own[row["data"]] + 1e-9
    }
    return [
        {**row, "equal_rate": {k: v for k, v in row["equal_rate"].items() if (row["data"], k) not in too_often}}
        for row in delay
    ]


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
    """Who was sooner; then median delays per data set: one line a fault, one column a family of detectors."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    return "\n\n".join(
        [_counts(rows, names), *(_of_data(name, [row for row in rows if row["data"] == name]) for name in names)]
    )


def _counts(rows: Rows, names: Sequence[str]) -> str:
    """On how many faults Holdfast was sooner, as soon and later: than the best of others for each fault, and than each
    family of peers on all data sets together."""
    lines = [_line("Holdfast against", "faults", "sooner", "as soon", "later"), "|---" * 5 + "|"]
    for name in names:
        of = [row for row in rows if row["data"] == name]
        for title, plain_rules in (("the best peer of each fault", False), ("the best plain rule of each fault", True)):
            bests = [best_of(row["equal_rate"], plain_rules=plain_rules)[0] for row in of]
            if all(best is None for best in bests):
                continue
            own = [_number(row["holdfast_compared"]) for row in of]
            found = [beside(mine, np.inf if best is None else best) for mine, best in zip(own, bests, strict=True)]
            cells = [str(found.count(each)) for each in ("shorter", "equal", "longer")]
            lines.append(_line(f"{title}, {name}", str(len(of)), *cells))
    single = [family for family in _families(rows) if _is_peer(family)]
    for family in single:
        of = [row for row in rows if any(_family(name) == family for name in row["equal_rate"])]
        pairs = [(_number(row["holdfast_compared"]), _best_of_family(row, family)) for row in of]
        found = [beside(mine, best) for mine, best in pairs]
        cells = [str(found.count(each)) for each in ("shorter", "equal", "longer")]
        lines.append(_line(f"{family}, all data sets", str(len(of)), *cells))
    return "\n".join(lines)


def beside(mine: float, best: float) -> str:
    """Whether a delay is ``shorter``, ``equal`` or ``longer``; two that never come are equal."""
    return "shorter" if mine < best else "equal" if mine == best else "longer"


def best_of(delays: Mapping[str, float | None], *, plain_rules: bool) -> tuple[float | None, str]:
    """The shortest delay and whose it is, of the plain rules or of the peers; None without any."""
    some = {name: _number(value) for name, value in delays.items() if name.startswith("plain") is plain_rules}
    if not some:
        return None, ""
    name = min(some, key=lambda each: some[each])
    return some[name], name if np.isfinite(some[name]) else "none"


def _families(rows: Rows) -> list[str]:
    return list(dict.fromkeys(_family(name) for row in rows for name in row["equal_rate"]))


def _best_of_family(row: Mapping[str, Any], family: str) -> float:
    return min(_number(value) for name, value in row["equal_rate"].items() if _family(name) == family)


def _of_data(data: str, rows: Rows) -> str:
    families = list(dict.fromkeys(_family(name) for row in rows for name in row["default"]))
    lines = [_line(f"{data}: fault", "Holdfast", *families), "|---" * (len(families) + 2) + "|"]
    for row in rows:
        cells = []
        for family in families:
            equal, default = (
                [_number(v) for name, v in row[kind].items() if _family(name) == family]
                for kind in ("equal_rate", "default")
            )
            cells.append(f"{_shown(min(equal)) if equal else 'too often'} ({_shown(min(default))})")
        lines.append(_line(row["fault"], _shown(_number(row["holdfast_compared"])), *cells))
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
