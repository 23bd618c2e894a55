"""Tell people: in the log, and to a webhook where one is named."""

import msgspec

from holdfast.core.meaning import headline, reason
from holdfast.core.protocols import Controls
from holdfast.core.records import Incident


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Notify about an incident. The message goes to the log, and as JSON to the system's webhook if it has one."""

    def act(self, incident: Incident, controls: Controls) -> str:
        """Send one message: check, subject, why and what was noted; then since when, what it costs, where, what
        changed. Whoever sends it names the system and says where it goes."""
        subject = f" {incident.subject}" if incident.subject else ""
        said = f"{incident.check}{subject}: {reason(incident.last)}"
        meaning = headline(incident)
        return controls.notify(f"{said}. {meaning[:1].upper()}{meaning[1:]}" if meaning else said)
