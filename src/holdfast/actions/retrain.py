"""Train again on what is known now, and try to release the result."""

from typing import Annotated, Any, Literal

import msgspec

from holdfast.core.protocols import Controls
from holdfast.core.records import Incident


class Retrain(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=lambda name: name.rstrip("_")
):
    """Submit a training job. While one is open, asking again changes nothing, its conditions included."""

    if_: Literal["better"] | None = None
    """``better``: its candidate is released only where it beats the live version for sure, and by more than `cost`."""
    cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """What a new version must earn to be worth having, as mean loss a row, in the loss of `release.decide`."""

    def __post_init__(self) -> None:
        if self.cost and self.if_ is None:
            raise ValueError("'cost' has no effect without 'if: better'")

    def act(self, incident: Incident, controls: Controls) -> str:
        """Submit the job; whether its result is released is for gates and evidence to say."""
        payload: dict[str, Any] = {"cause": incident.cause, "incident": incident.id}
        if self.if_ is not None:
            payload |= {"if": self.if_, "cost": self.cost}
        job = controls.submit("train", payload)
        return f"training submitted as {job}"
