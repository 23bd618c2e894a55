"""Train again on what is known now, and try to release the result."""

import msgspec

from holdfast.core.protocols import Controls
from holdfast.core.records import Incident


class Retrain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Submit a training job. While one is open, asking again changes nothing."""

    def act(self, incident: Incident, controls: Controls) -> str:
        """Submit the job; whether its result is released is for gates and evidence to say."""
        job = controls.submit("train", {"cause": incident.cause, "incident": incident.id})
        return f"training submitted as {job}"
