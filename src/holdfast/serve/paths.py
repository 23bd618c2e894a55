"""Which resource of the data plane a path names, and how it may be asked."""

from typing import Literal

import msgspec

Kind = Literal[
    "live",
    "ready",
    "server",
    "openapi",
    "metrics",
    "stats",
    "model",
    "model_ready",
    "infer",
    "index",
    "loading",
    "predict",
    "labels",
    "predictions",
    "events",
]

POSTED: frozenset[Kind] = frozenset({"infer", "index", "loading", "predict", "labels", "predictions", "events"})
"""What takes POST; everything else takes GET and HEAD."""
OPEN: frozenset[Kind] = frozenset({"live", "ready"})
"""What needs no token."""


class Place(msgspec.Struct, frozen=True):
    """What a path names: a kind of resource, a system and a version where there is one."""

    kind: Kind
    system: str = ""
    version: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """How it may be asked."""
        return ("POST",) if self.kind in POSTED else ("GET", "HEAD")


def place_of(path: str) -> Place | None:
    """The place that a path names; None when there is none."""
    match path.strip("/").split("/"):
        case ["v2", "models", "stats"]:
            return Place("stats")
        case ["v2", "models", system, *rest]:
            return _model_place(system, rest)
        case ["metrics"]:
            return Place("metrics")
        case ["predict", system]:
            return Place("predict", system)
        case ["labels", system]:
            return Place("labels", system)
        case ["predictions", system]:
            return Place("predictions", system)
        case ["events", system]:
            return Place("events", system)
        case ["v2"]:
            return Place("server")
        case ["v2", "health", "live"]:
            return Place("live")
        case ["v2", "health", "ready"]:
            return Place("ready")
        case ["v2", "repository", "index"]:
            return Place("index")
        case ["v2", "repository", "models", system, "load" | "unload"]:
            return Place("loading", system)
        case ["openapi.json"]:
            return Place("openapi")
    return None


def _model_place(system: str, rest: list[str]) -> Place | None:
    version = ""
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    match rest:
        case []:
            return Place("model", system, version)
        case ["ready"]:
            return Place("model_ready", system, version)
        case ["stats"]:
            return Place("stats", system, version)
        case ["infer"]:
            return Place("infer", system, version)
    return None
