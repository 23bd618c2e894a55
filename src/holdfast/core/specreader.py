"""Items of a file to values of a type, collecting every problem on the way.

What a type's values may look like in the file beyond plain YAML is given to the reader as `words`.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import UNSET

from holdfast.core.specrules import RULES
from holdfast.core.specyaml import Item, join
from holdfast.errors import Problem, did_you_mean

_NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}


class Reader:
    """Reads items as the types of `core/spec.py` and collects what is wrong.

    Every method returns UNSET after it has noted a problem, so that the rest of the file is still read.
    """

    def __init__(self, words: Mapping[Any, Callable[["Reader", Item], Any]]) -> None:
        self.problems: list[Problem] = []
        self._words = words

    def wrong(self, item: Item, message: str) -> Any:
        self.problems.append(Problem(message, path=item.path, line=item.line))
        return UNSET

    def read(self, item: Item, wanted: Any) -> Any:
        """The value of an item as a type, with the words that the file may use for it."""
        if wanted in self._words:
            return self._words[wanted](self, item)
        origin, arguments = get_origin(wanted), get_args(wanted)
        if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[1] is not Any:
            return self.mapping(item, arguments[1])
        if origin in (Union, types.UnionType) and type(None) in arguments:
            if item.value is None:
                return None
            others = tuple(part for part in arguments if part is not type(None))
            return self.read(item, others[0]) if len(others) == 1 else self.leaf(item, wanted)
        if origin is Annotated:
            value = self.read(item, arguments[0])
            return value if value is UNSET else self.convert(item, value, wanted)
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return self.section(item, wanted)
        if origin is tuple and arguments[1:] == (...,):
            return self.sequence(item, arguments[0])
        return self.leaf(item, wanted)

    def section(self, item: Item, wanted: type[msgspec.Struct]) -> Any:
        """A section: known keys, each read as its field's type, the required ones there, its rules kept."""
        entries = self.entries(item)
        return entries if entries is UNSET else self.build(item, wanted, self.fields(item, entries, wanted))

    def entries(self, item: Item) -> Any:
        if not isinstance(item.value, dict):
            return self.wrong(item, f"expected a mapping, got {seen(item)}")
        return item.value

    def fields(
        self,
        item: Item,
        entries: Mapping[str, Item],
        wanted: type,
        beside: Iterable[str] = (),
        required: Iterable[str] = (),
    ) -> Any:
        """Values by field name of what is given in `entries`; `beside` are keys that are read elsewhere, `required`
        those that must be there though the type has a default for them."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        meant = set()
        values: dict[str, Any] = {}
        for key, entry in entries.items():
            if key in fields:
                values[fields[key].name] = self.read(entry, fields[key].type)
                continue
            known = [*fields, *beside]
            meant.update(get_close_matches(key, known, n=1))
            self.wrong(entry, f"unknown key{did_you_mean(key, known)}")
            values[key] = UNSET
        for key, field in fields.items():
            if (field.required or key in required) and key not in entries and key not in meant:
                values[key] = self.wrong(item, f"'{key}' is required and not there")
        return UNSET if any(value is UNSET for value in values.values()) or meant else values

    def build(self, item: Item, wanted: type[msgspec.Struct], values: Any) -> Any:
        """The section, after its rules; a broken rule is noted and the section used all the same."""
        if values is UNSET:
            return UNSET
        try:
            built = wanted(**values)
        except (TypeError, ValueError) as error:  # what a plug-in's own __post_init__ refuses
            return self.wrong(item, str(error))
        for path, message in RULES.get(wanted, _no_rules)(built):
            self.problems.append(Problem(message, path=join(item.path, path) if path else item.path))
        return built

    def sequence(self, item: Item, wanted: Any) -> Any:
        """A tuple; one word stands for a list of one."""
        if item.text is not None:
            one = self.read(item, wanted)
            return one if one is UNSET else (one,)
        if not isinstance(item.value, list):
            return self.wrong(item, f"expected a list, got {seen(item)}")
        values = [self.read(part, wanted) for part in item.value]
        return UNSET if any(value is UNSET for value in values) else tuple(values)

    def mapping(self, item: Item, wanted: Any) -> Any:
        entries = self.entries(item)
        if entries is UNSET:
            return UNSET
        values = {key: self.read(entry, wanted) for key, entry in entries.items()}
        return UNSET if any(value is UNSET for value in values.values()) else values

    def leaf(self, item: Item, wanted: Any) -> Any:
        choices = get_args(wanted) if get_origin(wanted) is Literal else ()
        as_text = wanted is str or (choices and all(isinstance(choice, str) for choice in choices))
        plain = item.text if as_text and item.text is not None else item.plain()
        if choices and item.text is not None and plain not in choices:
            return self.wrong(item, f"'{item.text}' is not taken{did_you_mean(item.text, [str(c) for c in choices])}")
        if wanted in _NOUNS and (item.value is None or isinstance(item.value, list | dict)):
            return self.wrong(item, f"expected {_NOUNS[wanted]}, got {seen(item)}")
        return self.convert(item, plain, wanted)

    def convert(self, item: Item, value: Any, wanted: Any) -> Any:
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            noun = _NOUNS.get(wanted)
            said = f"expected {noun}, got {seen(item)}" if noun else str(error).replace("`", "'")
            return self.wrong(item, said[:1].lower() + said[1:])

    def word(self, item: Item, read: Callable[[str], Any]) -> Any:
        """A value that the file writes as one word or a few, such as ``2h`` or ``canary 10% 3d``."""
        try:
            return read(item.text if item.text is not None else seen(item))
        except ValueError as error:
            return self.wrong(item, str(error))


def _no_rules(section: Any) -> Iterable[tuple[str, str]]:
    return ()


def seen(item: Item) -> str:
    """What stands in the file, in words."""
    if isinstance(item.value, list):
        return "a list"
    if isinstance(item.value, dict):
        return "a mapping"
    return "nothing" if item.text is None else f"'{item.text}'"
