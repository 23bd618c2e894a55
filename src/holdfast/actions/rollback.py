"""Take the newest release back."""

import msgspec

from holdfast.core.protocols import Controls
from holdfast.core.records import Incident


class Rollback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Roll back: an open release if there is one, else the live version to the one before it."""

    def act(self, incident: Incident, controls: Controls) -> str:
        """Roll back and say what is live now."""
        live = controls.rollback(f"{incident.id}: {incident.last.why}")
        return f"rolled back; version {live} is live"
