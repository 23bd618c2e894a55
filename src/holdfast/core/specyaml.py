"""YAML text to values that know where they stand: a path and a line each.

Scalars are read as in YAML 1.2: only ``true``, ``false``, ``null``, ``~`` and numbers are special, so that ``on``
stays a word and ``NO`` stays Norway. Nothing in a file can construct an object.
"""

import math
import re
from typing import Any, cast

import msgspec
import yaml

from holdfast.errors import Problem

_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the file. `value` is a scalar, a list of items, or a dict of items."""

    path: str
    line: int
    """Line of the value, or of its key where it has one; counts from 1."""
    value: Any
    text: str | None = None
    """A scalar as it was written, without quotes; None for null, a list or a mapping."""

    def plain(self) -> Any:
        """The value without places: scalars, lists and dicts."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value


class _Loader(yaml.SafeLoader):
    """Leaves every plain scalar as text; what it means is decided in `scalar`."""


_Loader.yaml_implicit_resolvers = {}


def scalar(text: str) -> Any:
    """What an unquoted word means: None, a boolean, an integer, a finite float, or the text itself.

    >>> [scalar(word) for word in ("on", "true", "1e-3", "7", "~", "1e999")]
    ['on', True, 0.001, 7, None, '1e999']
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def join(path: str, key: str | int) -> str:
    """A path one step deeper: ``monitors`` and 2 give ``monitors[2]``, then ``check`` gives ``monitors[2].check``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


class Composed(msgspec.Struct, kw_only=True):
    """A file as items, every problem of its form, and the line of every path."""

    root: Item | None = None
    problems: list[Problem] = []
    lines: dict[str, int] = {}

    def line_of(self, path: str) -> int:
        """Line of a path, or of the nearest one above it that the file has; 1 for the whole file."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


def compose(text: str) -> Composed:
    """Items of a YAML text. `root` is None when it is empty or not YAML; `problems` then says so unless empty."""
    composed = Composed()
    try:
        # The loader above inherits SafeLoader and only composes nodes: nothing is constructed.
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            composed.root = _Composer(composed).item(node, path="", line=node.start_mark.line + 1)
    except yaml.YAMLError as error:
        composed.problems.append(_syntax(error))
    except RecursionError:
        composed.problems.append(Problem("nested too deeply", line=1))
    return composed


class _Composer:
    """Turns nodes into items and notes what the grammar does not take."""

    def __init__(self, into: Composed) -> None:
        self._into = into
        self._seen: set[int] = set()

    def item(self, node: yaml.Node, *, path: str, line: int) -> Item:
        self._into.lines[path] = line
        if id(node) in self._seen:
            self._note("an alias (*name) is not taken: write the value out, so that it has a line of its own", path)
            return Item(path=path, line=line, value=None)
        self._seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            self._note(f"the tag {node.tag!r} is not taken: write the plain value", path)
        if isinstance(node, yaml.MappingNode):
            return Item(path=path, line=line, value=self._mapping(node, path))
        if isinstance(node, yaml.SequenceNode):
            parts = [
                self.item(part, path=join(path, at), line=part.start_mark.line + 1)
                for at, part in enumerate(node.value)
            ]
            return Item(path=path, line=line, value=parts)
        return _scalar_item(cast("yaml.ScalarNode", node), path, line)

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Item]:
        entries: dict[str, Item] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._into.problems.append(Problem("a key must be a word", path=path, line=line))
                continue
            name = str(key.value)
            where = join(path, name)
            if name in entries:
                first = entries[name].line
                self._into.problems.append(
                    Problem(f"given twice, first on line {first}; keep one", path=where, line=line)
                )
                continue
            entries[name] = self.item(value, path=where, line=line)
        return entries

    def _note(self, message: str, path: str) -> None:
        self._into.problems.append(Problem(message, path=path, line=self._into.lines[path]))


def _scalar_item(node: yaml.ScalarNode, path: str, line: int) -> Item:
    text = str(node.value)
    value = scalar(text) if node.style is None else text
    return Item(path=path, line=line, value=value, text=None if value is None else text)


def _syntax(error: yaml.YAMLError) -> Problem:
    """One sentence for what the YAML reader says, with the line it points at."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    message = f"this is not YAML: {said}" + (f" {context}" if context else "")
    return Problem(message, line=mark.line + 1 if mark is not None else 1)
