"""Which inputs are times: they move on by themselves, so that no distance and no unit can be told by where they lie."""

from holdfast.core.evidence import Window
from holdfast.core.signature import Signature


def times_of(window: Window) -> frozenset[str]:
    """Names of the inputs that the window's `signature` calls times; none where it has no signature."""
    signature = window.facts.get("signature")
    if not isinstance(signature, Signature):
        return frozenset()
    return frozenset(column.name for column in signature.columns if column.type == "time")
