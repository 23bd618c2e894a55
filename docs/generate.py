"""Write the tables of the documents anew from the code: `make docs`.

A table stands between two lines of a page and is replaced whole::

    <!-- table: settings Feed -->         settings of a section of the system file
    <!-- table: options checks drift -->  options of a plug-in
    <!-- table: errors -->                the tree of errors
    <!-- table: metrics -->               what the data plane counts
    <!-- end -->
"""

import re
import types
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from holdfast import errors
from holdfast.core import evidence, kinds, spec
from holdfast.core.signature import Column
from holdfast.core.specdump import one_line
from holdfast.core.specschema import setting_docs
from holdfast.observe.metricfamilies import FAMILIES

DOCS = Path(__file__).parent
_TABLE = re.compile(r"(<!-- table: ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    timedelta: "duration",
    date: "day",
    spec.Rate: "rate",
    spec.Span: "history",
    Column: "column",
    Any: "any",
}


def main() -> None:
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            page.write_text(after, encoding="utf-8")


def render(page: str) -> str:
    """The page with every table as the code has it now. Raises KeyError for a table that nothing makes."""
    return _TABLE.sub(lambda found: found[1] + "\n" + _table(*found[2].split()) + "\n" + found[4], page)


def _table(subject: str, *names: str) -> str:
    if subject == "settings":
        return settings_table(section(names[0]))
    if subject == "options":
        return settings_table(kinds.load(*names))
    if subject == "errors":
        return "\n".join(["| error | exit code | when |", "|---|---|---|", *_errors(errors.HoldfastError, "")]) + "\n"
    if subject == "metrics":
        rows = [f"| `{f.name}` | {f.kind} | {_labels(f.labels)} | {_prose(f.help)} |" for f in FAMILIES]
        return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"
    raise KeyError(f"nothing makes a table of '{subject}'")


def section(name: str) -> type[msgspec.Struct]:
    """A section of the system file by the name of its type."""
    found: type[msgspec.Struct] = getattr(spec, name, None) or getattr(evidence, name)
    return found


def settings_table(described: type[msgspec.Struct]) -> str:
    """Setting, type, default and meaning of each field."""
    docs = setting_docs(described)
    rows = [
        f"| `{field.encode_name}` | {_words(field.type)} | {_default(field)} | {_prose(docs[field.encode_name])} |"
        for field in msgspec.structs.fields(described)
        if not (field.encode_name in ("options", "limit") and described in (spec.Gate, spec.Monitor, spec.Response))
    ]
    if not rows:
        return "It has no options.\n"
    return "\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _errors(error: type[errors.HoldfastError], under: str) -> Iterator[str]:
    yield f"| {under}`{error.__name__}` | {error.exit_code} | {_prose((error.__doc__ or '').strip())} |"
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _errors(child, under + "&ensp;")


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _words(wanted: Any) -> str:
    if wanted in _WORDS:
        return _WORDS[wanted]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in arguments if part is not type(None))
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"name: {_words(arguments[1])}"
    return f"[{wanted.__name__}](#{wanted.__name__.lower()})"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if callable(field.default_factory) else field.default
    if value is None or value in ((), {}, "") or isinstance(value, msgspec.Struct):
        return ""
    return f"`{'1 per month' if field.type == spec.Rate else one_line(value)}`"


def _prose(said: str) -> str:
    return re.sub(r"\s+", " ", said.replace("``", "`")).replace("|", "\\|")


if __name__ == "__main__":
    main()
