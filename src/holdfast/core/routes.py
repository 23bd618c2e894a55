"""What the data plane serves: the numbered projection of the registry that workers follow.

Written by whoever changes the catalog, read by workers. The bytes carry their own checksum, so a file that was cut
short or changed is refused and a worker goes on with the last good one.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from holdfast.core.signature import Signature
from holdfast.core.spec import Serve
from holdfast.errors import StateError

FORMAT = 1

ServingStage = Literal["live", "canary"]


class TokenHash(msgspec.Struct, frozen=True, kw_only=True):
    """Who may ask: the hash of a secret, never the secret."""

    sha256: str
    role: Literal["admin", "client"]
    name: str = ""


class RoutedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version that answers requests and where its artifact lies."""

    version: str
    artifact: str
    """Hash of the artifact; two versions with the same one share a loaded model."""
    directory: str
    """Where the artifact is unpacked."""
    bundle: str = ""
    """Path of the signature bundle that it is verified with at every load."""


class ServedElsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a model that is served elsewhere look like when they are handed in."""

    signature: Signature
    score: str
    """Name of the output of a payload that holds the answer."""
    version: str = ""
    """Attribute of a CloudEvent that names the version; empty: what the payload calls the version of its model."""


class RoutedSystem(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of one system are answered."""

    task: str
    output: str
    """Name of the model's output, for example ``probability``."""
    classes: tuple[str, ...] = ()
    """Of the label, in order, where the task is about some."""
    live: RoutedVersion | None = None
    canary: RoutedVersion | None = None
    canary_share: float = 0.0
    """Share of units that the canary answers, in [0, 1]."""
    serve: Serve = Serve()
    key: str = ""
    """Column that a label is matched on; in a request it is no input unless the signature names it too."""
    unit: str = ""
    """Column whose values stick to one version in a split; empty means the key."""
    is_listwise: bool = False
    """Whether rows are ordered within lists, those of a unit: without one, the rows of a request are a list."""
    release: str = ""
    """Release that put the version or the split in place."""
    elsewhere: ServedElsewhere | None = None
    """Where the model is served elsewhere: nothing is answered here, but answers are taken in."""


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to know. A higher `generation` replaces a lower one.

    Without tokens every route is open, which is meant for loopback and tests.
    """

    generation: int = 0
    systems: Mapping[str, RoutedSystem] = {}
    tokens: tuple[TokenHash, ...] = ()


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    sha256: str
    routes: msgspec.Raw


def encode(routes: Routes) -> bytes:
    """The routes as JSON with a checksum. The same routes give the same bytes."""
    body = msgspec.json.encode(routes, order="deterministic")
    return msgspec.json.encode(
        _Sealed(format=FORMAT, sha256=hashlib.sha256(body).hexdigest(), routes=msgspec.Raw(body))
    )


def decode(data: bytes) -> Routes:
    """The routes that `encode` wrote. Raises StateError for anything else."""
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"the routes are damaged ({error}); they are written again at the next change") from error
    if sealed.format != FORMAT:
        raise StateError(
            f"the routes have format {sealed.format}, this version of Holdfast reads format {FORMAT}; "
            "restart the workers with the version that wrote them"
        )
    if hashlib.sha256(sealed.routes).hexdigest() != sealed.sha256:
        raise StateError("the routes are damaged (checksum differs); they are written again at the next change")
    try:
        return msgspec.json.decode(sealed.routes, type=Routes)
    except msgspec.ValidationError as error:
        raise StateError(f"the routes are not understood: {error}") from error
