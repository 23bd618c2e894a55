"""Holdfast runs machine-learning systems in production and holds them to what was promised."""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "HoldfastError": "holdfast.errors",
    "SpecError": "holdfast.errors",
    "SystemSpec": "holdfast.core.spec",
    "read_spec": "holdfast.core.specfile",
    "parse_spec": "holdfast.core.specfile",
    "dump_spec": "holdfast.core.specdump",
    "ManualClock": "holdfast.core.clock",
    "SystemClock": "holdfast.core.clock",
    "drift": "holdfast.library.drift",
    "estimate_quality": "holdfast.library.quality",
    "compare": "holdfast.library.comparison",
}
"""Public names and the module each is imported from on first use, so that importing holdfast stays light."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'holdfast' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
