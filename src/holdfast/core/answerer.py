"""Who answered: a version in a stage."""

from typing import Literal

import msgspec

from holdfast.core.signature import Signature

ELSEWHERE: Literal["elsewhere"] = "elsewhere"
"""The stage of a recorded answer that Holdfast did not give, but was told of."""


class Answerer(msgspec.Struct, frozen=True, kw_only=True):
    """Which version answered, in which stage of which release."""

    system: str
    version: str
    stage: Literal["live", "canary", "batch", "elsewhere"]
    release: str
    signature: Signature
    signature_hash: str
