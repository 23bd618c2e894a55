"""Habits of the source that no linter holds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast.core import kinds

SOURCE = Path(holdfast.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def inner_imports(tree: ast.AST) -> Iterator[str]:
    """Modules of Holdfast that are imported inside a function."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast"):
                    yield str(node.module)
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names if alias.name.startswith("holdfast"))


def clock_reads(tree: ast.AST) -> Iterator[str]:
    """Calls that ask the machine what time it is."""
    asked = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("time", "time")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in asked:
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("name", holdfast.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(holdfast, name)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = holdfast.nothing


@pytest.mark.slow
@pytest.mark.parametrize("group", kinds.GROUPS)
def test_registered_kinds_can_be_loaded(group: str) -> None:
    for name in kinds.registered(group):
        assert kinds.load(group, name).__doc__, f"{group} {name} has no docstring"


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XXX", "raise NotImplemented" + "Error")
    left = [f"{file.relative_to(SOURCE)}: {word}" for file in FILES for word in words if word in file.read_text()]
    assert not left


def test_holdfast_is_imported_at_the_top_of_files() -> None:
    hidden = {
        str(file.relative_to(SOURCE)): found
        for file in FILES
        if (found := list(inner_imports(ast.parse(file.read_text()))))
    }
    assert not hidden


def test_only_the_clock_asks_for_the_time() -> None:
    asked = {
        str(file.relative_to(SOURCE)): found
        for file in FILES
        if file != SOURCE / "core" / "clock.py" and (found := list(clock_reads(ast.parse(file.read_text()))))
    }
    assert not asked


def test_every_module_says_its_job_in_its_first_line() -> None:
    silent = [
        str(file.relative_to(SOURCE))
        for file in FILES
        if file.read_text().strip() and not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert not silent
