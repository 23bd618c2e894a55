"""Read a system file: YAML text in, a checked `SystemSpec` out, or every problem found with its line.

`core/specdump.py` is the way back; `core/specrules.py` holds what must be true beyond the types.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import UNSET

from holdfast.core import kinds
from holdfast.core.evidence import Limit
from holdfast.core.signature import Column
from holdfast.core.spans import Span
from holdfast.core.spec import MODELLED, Gate, Model, Monitor, Predictions, Rate, Response, Step, SystemSpec
from holdfast.core.speccolumns import read_column
from holdfast.core.specreader import Reader, seen
from holdfast.core.specrules import RULES
from holdfast.core.specwords import fill_names, read_duration, read_rate, read_span, read_step
from holdfast.core.specyaml import Item, compose, join
from holdfast.errors import Problem, SpecError, UnknownKind

_START = "write one with `holdfast init DATA`"


def read_spec(path: Path | str) -> SystemSpec:
    """The system that a file describes. Raises SpecError with every problem found."""
    return parse_spec(_text(Path(path)), file=str(path))


def parse_spec(text: str, *, file: str = "holdfast.yaml") -> SystemSpec:
    """The system that a YAML text describes; `file` is only named in errors. Raises SpecError."""
    composed = compose(text)
    reader = Reader(_WORDS)
    spec: Any = UNSET
    if composed.root is not None:
        spec = _top(reader, composed.root)
    elif not composed.problems:
        raise SpecError(file, [Problem(f"the file is empty; {_START}", line=1)])
    problems = composed.problems + [
        Problem(problem.message, path=problem.path, line=problem.line or composed.line_of(problem.path))
        for problem in reader.problems
    ]
    if problems:
        raise SpecError(file, sorted(problems, key=lambda problem: problem.line))
    return cast("SystemSpec", spec)


def origins(text: str) -> Mapping[str, int]:
    """Path of every value that a YAML text states -> its line; what is not in it is a default."""
    return compose(text).lines


def spec_hash(spec: SystemSpec) -> str:
    """16 hexadecimal digits that change with any value, but not with the order or layout of keys."""
    return hashlib.sha256(msgspec.json.encode(_whole(spec), order="sorted")).hexdigest()[:16]


def _whole(value: Any) -> Any:
    """A value with every default written out: msgspec leaves out one that is *identical*, not one that is equal."""
    if isinstance(value, msgspec.Struct):
        return {field: _whole(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_whole(part) for part in value]
    return value + 0.0 if isinstance(value, float) else value  # -0.0 equals 0.0 and hashes like it


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = f"there is no such file; name another, or {_START}"
    except IsADirectoryError:
        problem = "this is a directory; name the system file in it"
    except UnicodeDecodeError as error:
        problem = f"this is not UTF-8 text (byte {error.start}); save it as UTF-8"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    raise SpecError(str(path), [Problem(problem)])


def _top(reader: Reader, item: Item) -> Any:
    if not isinstance(item.value, dict):
        return reader.wrong(item, f"the file holds {seen(item)}; it must be a mapping that begins 'system: NAME'")
    return reader.read(item, SystemSpec)


def _system(reader: Reader, item: Item) -> Any:
    """The whole file: with a model of its own, its gates and its release, or with `predictions` instead of them."""
    entries = reader.entries(item)
    if entries is UNSET:
        return UNSET
    required = () if "predictions" in entries else MODELLED
    values = reader.fields(item, entries, SystemSpec, required=required)
    return reader.build(item, SystemSpec, values)


def _columns(reader: Reader, item: Item) -> Any:
    entries = reader.entries(item)
    if entries is UNSET:
        return UNSET
    columns = {name: _column(reader, name, entry) for name, entry in entries.items()}
    return UNSET if any(column is UNSET for column in columns.values()) else columns


def _column(reader: Reader, name: str, item: Item) -> Any:
    try:
        column = read_column(name, item)
    except ValueError as error:
        return reader.wrong(item, str(error))
    for _, message in RULES[Column](column):
        reader.wrong(item, message)
    return column


def _kind(reader: Reader, entries: Mapping[str, Item], key: str, group: str) -> Any:
    """The class that a key names, or UNSET: unknown, not readable, or its module cannot be imported."""
    item = entries.get(key)
    if item is None or item.text is None:
        return UNSET
    try:
        return kinds.load(group, item.text)
    except UnknownKind as error:
        return reader.wrong(item, str(error))
    except Exception as error:  # noqa: BLE001 - a plug-in's module is foreign code
        return reader.wrong(item, f"'{item.text}' cannot be loaded: {type(error).__name__}: {error}")


def _options(reader: Reader, item: Item, entries: Mapping[str, Item], wanted: Any, beside: Iterable[str] = ()) -> Any:
    """What is given of a plug-in's options, as plain values that it takes."""
    if wanted is UNSET:
        return UNSET
    if not (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        return reader.wrong(item, f"{wanted!r} is not a msgspec.Struct, so its options cannot be read")
    before = len(reader.problems)
    values = reader.fields(item, entries, wanted, beside)
    if reader.build(item, wanted, values) is UNSET or len(reader.problems) > before:
        return UNSET
    names = {field.name: field.encode_name for field in msgspec.structs.fields(wanted)}
    plain = {names[name]: value for name, value in values.items()}
    return msgspec.to_builtins(plain, builtin_types=(timedelta,))


def _model(reader: Reader, item: Item) -> Any:
    """The model section, its `params` read as the fields of the trainer."""
    entries = reader.entries(item)
    if entries is UNSET:
        return UNSET
    _kind(reader, entries, "task", "tasks")
    default = Item(path=join(item.path, "trainer"), line=item.line, value=_TRAINER, text=_TRAINER)
    trainer = _kind(reader, {"trainer": entries.get("trainer", default)}, "trainer", "trainers")
    given = {key: entry for key, entry in entries.items() if key != "params"}
    values = reader.fields(item, given, Model, beside=["params"])
    if "params" in entries:
        parts = reader.entries(entries["params"])
        params = UNSET if parts is UNSET else _options(reader, entries["params"], parts, trainer)
        values = UNSET if UNSET in (params, values) else values | {"params": params}
    return reader.build(item, Model, values)


def _predictions(reader: Reader, item: Item) -> Any:
    entries = reader.entries(item)
    if entries is UNSET:
        return UNSET
    _kind(reader, entries, "task", "tasks")
    return reader.section(item, Predictions)


def _checked(reader: Reader, item: Item, wanted: type[Gate] | type[Monitor]) -> Any:
    """A gate or monitor: its own keys, the limit's keys, and the options of its check."""
    own = _keys(wanted) - {"options", "limit"}
    limit = _keys(Limit)
    values = _with_options(reader, item, wanted, "check", "checks", own, limit)
    return reader.build(item, wanted, values)


def _response(reader: Reader, item: Item) -> Any:
    values = _with_options(reader, item, Response, "do", "actions", _keys(Response) - {"options"}, frozenset())
    return reader.build(item, Response, values)


def _with_options(
    reader: Reader, item: Item, wanted: Any, key: str, group: str, own: frozenset[str], limit: frozenset[str]
) -> Any:
    entries = reader.entries(item)
    if entries is UNSET:
        return UNSET
    rest = {name: entry for name, entry in entries.items() if name not in own | limit}
    values = reader.fields(item, {name: entry for name, entry in entries.items() if name in own}, wanted)
    options = _options(reader, item, rest, _kind(reader, entries, key, group), beside=sorted(own | limit))
    limits = reader.fields(item, {name: entry for name, entry in entries.items() if name in limit}, Limit)
    if UNSET in (values, options, limits):
        return UNSET
    values["options"] = options
    return values | {"limit": Limit(**limits)} if limit else values


def _named(reader: Reader, item: Item, wanted: Any) -> Any:
    """Gates or monitors, each with a name."""
    entries = reader.sequence(item, wanted)
    return entries if entries is UNSET else fill_names(entries)


_WORDS: Mapping[Any, Callable[[Reader, Item], Any]] = {
    SystemSpec: _system,
    timedelta: lambda reader, item: reader.word(item, read_duration),
    Rate: lambda reader, item: reader.word(item, read_rate),
    Step: lambda reader, item: reader.word(item, read_step),
    Span: lambda reader, item: reader.word(item, read_span),
    Mapping[str, Column]: _columns,
    Model: _model,
    Predictions: _predictions,
    Gate: lambda reader, item: _checked(reader, item, Gate),
    Monitor: lambda reader, item: _checked(reader, item, Monitor),
    Response: _response,
    tuple[Gate, ...]: lambda reader, item: _named(reader, item, Gate),
    tuple[Monitor, ...]: lambda reader, item: _named(reader, item, Monitor),
}
_TRAINER = next(field.default for field in msgspec.structs.fields(Model) if field.name == "trainer")


def _keys(section: type) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(section))
