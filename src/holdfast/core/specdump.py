"""Write a system file: a `SystemSpec` as the mapping the file would hold, and that as YAML a person likes to read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from holdfast.core import kinds
from holdfast.core.signature import Column
from holdfast.core.spans import Span
from holdfast.core.spec import MODELLED, Gate, Model, Monitor, Response, Step, SystemSpec
from holdfast.core.speccolumns import write_column
from holdfast.core.specwords import fill_names, made_name, write_duration, write_rate, write_span, write_step
from holdfast.core.specyaml import join, scalar

_BLOCKS = ("data", "data.feeds", "data.columns", "model", "release", "predictions")
_LISTS = ("gates", "monitors", "responses")
_ALWAYS = ("data.timezone", "model.trainer", "model.seed", "false_alarms")
"""Settings that are written even where they equal the default, because a reader looks for them."""
_WIDTH = 110
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./*%+()<>=?!'- ")


def dump_spec(spec: SystemSpec, comments: Mapping[str, str] | None = None) -> str:
    """The YAML text of a system; reading it gives the same system.

    `comments` go above the line of their path (``data.columns.temp``, ``gates[0]``), "" above everything.
    Raises ValueError for a comment on a path that has no line of its own.
    """
    left = dict(comments or {})
    lines = [*_comment(left, "", 0), *_block(document(spec), "", 0, left)]
    if left:
        raise ValueError(f"no line to put a comment above: {', '.join(sorted(left))}")
    return "\n".join(lines) + "\n"


def document(spec: SystemSpec, *, defaults: bool = False) -> dict[str, Any]:
    """What the file holds, as dicts, lists and scalars in the file's own words.

    With `defaults`, every setting is there, those of trainers, checks and actions too.
    """
    return _Document(defaults).section(spec, "", skip=("predictions",) if spec.predictions is None else MODELLED)


def settings(spec: SystemSpec) -> Iterator[tuple[str, str]]:
    """Path and value of every setting, defaults too, as one line of the file's own words each."""
    yield from _settings(document(spec, defaults=True), "")


def _settings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value and not path.startswith("data.columns."):
        for key, part in value.items():
            yield from _settings(part, join(path, key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for at, part in enumerate(value):
            yield from _settings(part, join(path, at))
    else:
        yield path, one_line(value)


def one_line(value: Any) -> str:
    """A value as the file writes it on one line."""
    return " ".join(_words(write_duration(value) if isinstance(value, timedelta) else value))


class _Document:
    """Turns sections into what the file says of them."""

    def __init__(self, defaults: bool) -> None:
        self._defaults = defaults

    def section(self, section: msgspec.Struct, path: str, skip: Sequence[str] = ()) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for field in msgspec.structs.fields(section):
            value = getattr(section, field.name)
            where = join(path, field.encode_name)
            if field.name in skip or not (self._defaults or where in _ALWAYS or value != _default(field)):
                continue
            written[field.encode_name] = write_rate(value) if where == "false_alarms" else self.value(value, where)
        return written

    def value(self, value: Any, path: str) -> Any:
        if isinstance(value, timedelta):
            return write_duration(value)
        if type(value) in self._WRITERS:
            return self._WRITERS[type(value)](self, value, path)
        if isinstance(value, msgspec.Struct):
            return self.section(value, path)
        if isinstance(value, Mapping):
            return {key: self.value(part, join(path, key)) for key, part in value.items()}
        if isinstance(value, tuple | list):
            if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
                return value[0]  # one word stands for a list of one
            parts = _unnamed(value) if path in ("gates", "monitors") and not self._defaults else value
            return [self.value(part, join(path, at)) for at, part in enumerate(parts)]
        return value

    def step(self, step: Step, path: str) -> str:
        return write_step(step)

    def span(self, span: Span, path: str) -> str:
        return write_span(span)

    def column(self, column: Column, path: str) -> Any:
        return write_column(column)

    def model(self, model: Model, path: str) -> dict[str, Any]:
        written = self.section(model, path)
        if self._defaults:
            written["params"] = self.options("trainers", model.trainer, model.params, path)
        return written

    def checked(self, entry: Gate | Monitor, path: str) -> dict[str, Any]:
        own = self.section(entry, path, skip=("options", "limit"))
        first = {key: own.pop(key) for key in ("check", "name") if key in own}
        limit = _Document(False).section(entry.limit, path)
        return first | self.options("checks", entry.check, entry.options, path) | limit | own

    def response(self, response: Response, path: str) -> dict[str, Any]:
        own = self.section(response, path, skip=("options",))
        first = {key: own.pop(key) for key in ("on", "do") if own.get(key) is not None}
        own = {key: value for key, value in own.items() if value is not None}
        return first | self.options("actions", response.do, response.options, path) | own

    def options(self, group: str, kind: str, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        if self._defaults:
            known = msgspec.structs.fields(kinds.load(group, kind))
            given = {field.encode_name: _default(field) for field in known if not field.required} | dict(given)
        return {key: self.value(value, join(path, key)) for key, value in given.items()}

    _WRITERS: Mapping[type, Callable[["_Document", Any, str], Any]] = {
        Step: step,
        Span: span,
        Column: column,
        Model: model,
        Gate: checked,
        Monitor: checked,
        Response: response,
    }


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """The default of a field, or a mark that equals nothing where it is required."""
    return field.default_factory() if callable(field.default_factory) else field.default


def _unnamed(entries: Sequence[Any]) -> Sequence[Any]:
    """Entries without the names that reading would give them anyway."""
    bare = [
        msgspec.structs.replace(entry, name="") if entry.name.startswith(made_name(entry)) else entry
        for entry in entries
    ]
    return bare if fill_names(bare) == tuple(entries) else entries


def _block(value: Mapping[str, Any], path: str, indent: int, comments: dict[str, str]) -> Iterator[str]:
    """Lines of a mapping with one key per line."""
    for key, part in value.items():
        where = join(path, key)
        yield from _comment(comments, where, indent)
        head = " " * indent + f"{_word(key)}:"
        if where in _BLOCKS and part:
            yield head
            yield from _block(part, where, indent + 2, comments)
        elif where in _LISTS and part:
            yield head
            for at, entry in enumerate(part):
                yield from _comment(comments, join(where, at), indent + 2)
                yield from _flow(" " * (indent + 2) + "-", entry)
        else:
            yield from _flow(head, part)


def _flow(head: str, value: Any) -> Iterator[str]:
    """A value behind its key, broken between words where it is too long for one line."""
    line = head
    inner = " " * (len(head) - len(head.lstrip()) + 4)
    for word in _words(value):
        if len(line) + 1 + len(word) > _WIDTH and line not in (head, inner):
            yield line
            line = inner + word
        else:
            line += " " + word
    yield line


def _words(value: Any) -> list[str]:
    """A value in flow style, as the pieces between which a line may break."""
    if isinstance(value, Mapping):
        entries = [_prefixed(f"{_word(key)}: ", _words(part)) for key, part in value.items()]
        return _enclosed("{", entries, "}")
    if isinstance(value, list | tuple):
        return _enclosed("[", [_words(part) for part in value], "]")
    return [_word(value)]


def _prefixed(prefix: str, words: list[str]) -> list[str]:
    return [prefix + words[0], *words[1:]]


def _enclosed(left: str, entries: list[list[str]], right: str) -> list[str]:
    if not entries:
        return [left + right]
    words = [word for entry in entries for word in [*entry[:-1], entry[-1] + ","]]
    words[-1] = words[-1][:-1] + right
    return _prefixed(left, words)


def _word(value: Any) -> str:
    """A scalar; text is quoted unless it reads as itself without quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    plain = bool(text) and set(text) <= _PLAIN and (text[0].isalnum() or text[0] in "_./") and text[-1] != " "
    return text if plain and scalar(text) == text else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_character(char) for char in text) + '"'


def _character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _comment(comments: dict[str, str], path: str, indent: int) -> Iterator[str]:
    for line in comments.pop(path, "").splitlines():
        yield (" " * indent + f"# {line}").rstrip()
