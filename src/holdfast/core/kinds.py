"""Plug-in kinds: a name in a system file to the class that implements it.

Each plug-in package holds one line of data per kind, ``KINDS = {"drift": "holdfast.checks.drift:Drift"}``.
Third parties write the same line as an entry point in the group ``holdfast.<package>``.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from holdfast.errors import HoldfastError, UnknownKind

GROUPS = ("actions", "checks", "engines", "runtimes", "sources", "tasks", "trainers")


@cache
def registered(group: str) -> Mapping[str, str]:
    """Names of a group and where each is implemented, as ``module:attribute``; nothing is imported for them."""
    found: dict[str, str] = dict(import_module(f"holdfast.{group}").KINDS)
    for entry in entry_points(group=f"holdfast.{group}"):
        if entry.name in found and found[entry.name] != entry.value:
            raise HoldfastError(
                f"two {group} are named '{entry.name}': {found[entry.name]} and {entry.value}; rename one of them"
            )
        found[entry.name] = entry.value
    return found


def load(group: str, name: str) -> Any:
    """The class of a kind, imported on first use. Raises UnknownKind with the near miss."""
    known = registered(group)
    if name not in known:
        raise UnknownKind(group, name, known)
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
