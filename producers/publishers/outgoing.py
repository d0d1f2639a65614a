"""One message on its way out, whichever publisher sends it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send, and what its sender knows of it.

    `tenant_id`, `message_id` and `digest` are what the manifest will say, `group` is the tenant on whose
    behalf it is sent (garbage has one too), `kind` and `label` are what reports call it.
    """

    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    tenant_id: str | None = None
    message_id: str | None = None
    digest: str | None = None
    group: str | None = None
    kind: str = "event"
    label: str = ""
    deduplication_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def size_bytes(self) -> int:
        """Count as SQS does: the body, and of each attribute the name, the type and the value."""
        attributes = sum(
            _utf8(name) + len("String") + _utf8(value) for name, value in self.attributes.items()
        )
        return _utf8(self.body) + attributes


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
