"""One message to send, the same for every publisher."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send, and its metadata.

    `tenant_id`, `message_id` and `digest` go into the manifest. `group` is the tenant for the fair queue
    (invalid messages have one too). `kind` and `label` name the message in reports.
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
        """Return the size as SQS counts it: the body, and name, type and value of each attribute."""
        attributes = sum(
            _utf8(name) + len("String") + _utf8(value) for name, value in self.attributes.items()
        )
        return _utf8(self.body) + attributes


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
