"""The JSON Schema of the system file, for editors, and what the code says of each setting."""

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from holdfast.core import kinds
from holdfast.core.evidence import Limit
from holdfast.core.signature import Column
from holdfast.core.spans import Span
from holdfast.core.spec import MODELLED, Gate, Model, Monitor, Predictions, Rate, Response, Step, SystemSpec
from holdfast.core.speccolumns import OUTSIDES, TYPES

Schema = dict[str, Any]

_PRIMITIVES: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_ENDS = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2}
_ANY = {"const": "any"}
_WORDS: Mapping[Any, Schema] = {
    timedelta: {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*[wdhms]$", "examples": ["90s", "2h", "7d"]},
    date: {"type": "string", "format": "date", "examples": ["2026-01-01"]},
    Rate: {"type": "string", "pattern": r"^\S+ per (week|month|year)$", "examples": ["1 per month"]},
    Step: {"type": "string", "pattern": r"^(shadow( \S+)?|canary [0-9.]+%( \S+)?|live)$"},
    Span: {
        "type": "string",
        "pattern": r"^(all|auto|(half-life )?[0-9]+(\.[0-9]+)?\s*[wdhms])$",
        "examples": ["all", "90d", "half-life 90d", "auto"],
    },
    Column: {
        "anyOf": [
            {"enum": list(TYPES)},
            {
                "type": "object",
                "properties": {
                    "number": {"anyOf": [_ENDS, _ANY]},
                    "integer": {"anyOf": [_ENDS, _ANY]},
                    "category": {"anyOf": [{"type": "array", "minItems": 1}, _ANY]},
                    "boolean": _ANY,
                    "time": _ANY,
                    "outside": {"enum": list(OUTSIDES)},
                    "nullable": {"type": "boolean"},
                },
                "additionalProperties": False,
            },
        ]
    },
}


def file_schema() -> Schema:
    """JSON Schema (2020-12) of a system file. Options of plug-ins are left to `holdfast check`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Holdfast system file",
        **_schema(SystemSpec),
        "oneOf": [{"required": list(MODELLED)}, {"required": ["predictions"]}],
    }


def setting_docs(section: type) -> Mapping[str, str]:
    """Name in the file -> what the docstring below the field says; empty where it has none."""
    docs: dict[str, str] = {}
    for ancestor in reversed(section.__mro__):
        if issubclass(ancestor, msgspec.Struct) and ancestor is not msgspec.Struct:
            docs |= _attribute_docs(ancestor)
    return {field.encode_name: docs.get(field.name, "") for field in msgspec.structs.fields(section)}


def _attribute_docs(section: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            said = after.value.value if isinstance(after.value, ast.Constant) else None
            if isinstance(said, str):
                docs[field.target.id] = inspect.cleandoc(said).replace("\n", " ")
    return docs


def _schema(wanted: Any) -> Schema:
    if wanted in _WORDS:
        return _WORDS[wanted]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _SECTIONS.get(wanted, _section)(wanted)
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if part is type(None) else _schema(part) for part in arguments]}
    if origin is Annotated:
        return _schema(arguments[0])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return _list(_schema(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"type": _PRIMITIVES[wanted]} if wanted in _PRIMITIVES else {}


def _list(items: Schema) -> Schema:
    """A list, or one word that stands for a list of one."""
    many: Schema = {"type": "array", "items": items}
    return {"anyOf": [items, many]} if items.get("type") == "string" or "enum" in items else many


def _section(section: type) -> Schema:
    fields = msgspec.structs.fields(section)
    docs = setting_docs(section)
    properties = {}
    for field in fields:
        said = docs[field.encode_name]
        properties[field.encode_name] = _schema(field.type) | ({"description": said} if said else {})
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [field.encode_name for field in fields if field.required]
    described = {"description": inspect.getdoc(section) or ""}
    return described | schema | ({"required": required} if required else {})


def _open(key: str, group: str, beside: Iterable[type] = ()) -> Callable[[type], Schema]:
    """A section that also takes the options of the kind that `key` names."""

    def describe(section: type) -> Schema:
        schema = _section(section)
        properties = schema["properties"]
        properties.pop("options")
        properties.pop("limit", None)
        for part in beside:
            properties |= _section(part)["properties"]
        properties[key] = {"enum": sorted(kinds.registered(group))}
        return schema | {"properties": properties, "additionalProperties": True}

    return describe


def _model(section: type) -> Schema:
    schema = _section(section)
    schema["properties"]["task"] = {"enum": sorted(kinds.registered("tasks"))}
    schema["properties"]["trainer"] = {"enum": sorted(kinds.registered("trainers"))}
    return schema


def _predictions(section: type) -> Schema:
    schema = _section(section)
    schema["properties"]["task"] = {"enum": sorted(kinds.registered("tasks"))}
    return schema


_SECTIONS: Mapping[type, Callable[[type], Schema]] = {
    Gate: _open("check", "checks", [Limit]),
    Monitor: _open("check", "checks", [Limit]),
    Response: _open("do", "actions"),
    Model: _model,
    Predictions: _predictions,
}
