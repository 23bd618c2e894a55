"""Tell people: in the log, and to a webhook where one is named."""

import msgspec

from holdfast.core.protocols import Controls
from holdfast.core.records import Incident


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Notify about an incident. The message goes to the log, and as JSON to the system's webhook if it has one."""

    def act(self, incident: Incident, controls: Controls) -> str:
        """Send one message: system, check, subject and why."""
        subject = f" {incident.subject}" if incident.subject else ""
        controls.notify(f"{incident.system}: {incident.check}{subject}: {incident.last.why}")
        return "people were told"
