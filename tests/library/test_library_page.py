"""The page about notebooks runs, and shows what is printed."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("nannyml_car_loan", "bike_sharing")
STEP = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.slow
def test_the_page_about_notebooks_shows_what_is_printed(monkeypatch, shared_data):
    folders = [shared_data(name) for name in NEEDED]
    monkeypatch.chdir(folders[0].parent)
    steps = STEP.findall((ROOT / "docs" / "how-to" / "notebook.md").read_text(encoding="utf-8"))
    assert len(steps) == 6
    names: dict[str, object] = {}
    for code, shown in steps:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == shown
