"""The classes of a label: what each is called, in which order they stand, and the task that knows them."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holdfast.core import kinds

if TYPE_CHECKING:
    from holdfast.core.protocols import Task
    from holdfast.core.spec import SystemSpec

UNKNOWN = -1
"""The place of a label that is none of the classes."""
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_WHOLE_FLOAT = re.compile(r"(-?[0-9]{1,15})\.0+")


def class_name(value: bool | float | str) -> str:
    """What a label's class is called: text as it is, a whole number without a fraction.

    >>> class_name(3.0), class_name("3.0"), class_name("three")
    ('3', '3', 'three')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    whole = _WHOLE_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def is_whole(name: str) -> bool:
    """Whether a class is called by a whole number."""
    return _WHOLE.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names as they stand in an answer: by number where all are whole numbers, else as text.

    >>> in_order(["10", "9"]), in_order(["b", "10", "a"])
    (('9', '10'), ('10', 'a', 'b'))
    """
    listed = list(names)
    return tuple(sorted(listed, key=int) if all(map(is_whole, listed)) else sorted(listed))


def class_of(value: bool | float | str, classes: Sequence[str]) -> float:
    """The place of a label's class; -1 for one that is none of them."""
    name = class_name(value)
    return float(classes.index(name)) if name in classes else float(UNKNOWN)


def make_task(name: str, classes: Sequence[str] = ()) -> "Task":
    """The task of a kind, with the classes in order where it is about some."""
    kind = kinds.load("tasks", name)
    task: Task = kind(in_order(classes)) if classes else kind()
    return task


def task_of(spec: "SystemSpec") -> "Task":
    """What a system answers and how it is scored."""
    return make_task(spec.task, spec.data.label.classes)
