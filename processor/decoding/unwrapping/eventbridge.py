"""Removes the envelope of EventBridge.

    {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail": the event}

Its fields fill those missing in the detail: the detail may be an envelope, and then has its own type.
"""

from typing import Any

from processor.decoding.unwrapping import NO_ATTRIBUTES, Unwrapped, identifier, moment, refused
from processor.wire.beside import from_outside
from processor.wire.envelope import object_text
from processor.wire.formats import Claimed, Malformed, says_its_type
from processor.wire.strict_json import Document

_NAMES = {"id": "message_id", "source": "producer", "detail-type": "event_type"}
_SPOKEN_FOR = frozenset((*_NAMES, "time", "detail"))
_EXPECTED = (
    "expected an EventBridge event, because of UNWRAP=eventbridge: a JSON object with id, "
    "detail-type, source, time and detail; with an input transformer, unset UNWRAP"
)


def unwrap(document: Document, queue: str, *, typed: bool) -> Unwrapped | Malformed:  # noqa: ARG001 - ids of EventBridge are the same on all queues
    """Return the detail; the other fields are context."""
    fields = document.value if isinstance(document.value, dict) else {}
    implied = {ours: found for name, ours in _NAMES.items() if (found := identifier(fields.get(name)))}
    detail: Any = fields.get("detail")
    claimed = Claimed(**implied)
    if len(implied) < len(_NAMES) or "detail" not in fields:
        return refused(f"the body is not an EventBridge event; {_EXPECTED}", claimed)
    sent_at = moment("time", fields.get("time"), _EXPECTED, claimed)
    if isinstance(sent_at, Malformed):
        return sent_at
    implied["occurred_at"] = fields["time"]
    spoken_for, attributes = _SPOKEN_FOR, NO_ATTRIBUTES
    if says_its_type(detail):
        typed = True
    elif isinstance(detail, dict) and (tenant_id := identifier(detail.get("tenant_id"))):
        # Like an attribute of the detail: other attributes must agree with it.
        attributes = {"tenant_id": tenant_id}
    if typed:
        del implied["event_type"]
        spoken_for -= {"detail-type"}
    texts = document.member_texts
    return Unwrapped(
        texts["detail"].encode("utf-8", "surrogatepass"),
        attributes,
        implied=implied,
        context=object_text(from_outside({each: texts[each] for each in texts if each not in spoken_for})),
        sent_at=sent_at,
    )
