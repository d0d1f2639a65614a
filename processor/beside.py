"""What stands beside a body: what it names of the event, and what becomes of the rest.

    attributes ─┬▶ the six NAMES      fill what the body leaves open; where both speak they must agree
                └▶ everything else    goes into the context, behind the body's own words

Attributes are SQS's message attributes, AMQP's properties and headers, and Kafka's headers: one rule for all.
"""

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

Attribute: TypeAlias = str | bytes
"""The value of one message attribute: text (SQS String and Number) or bytes (Binary)."""

NAMES = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "schema_version")
"""What may be named beside a body."""

AMQP_MESSAGE_ID, AMQP_TIMESTAMP = "amqp.message_id", "amqp.timestamp"
_LAST_WORDS = {"message_id": AMQP_MESSAGE_ID, "occurred_at": AMQP_TIMESTAMP}
"""What names something where nothing else does. Libraries set them unasked, so they contradict nobody."""

OF_THE_BROKER = (
    "x-delivery-count",
    "x-acquired-count",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-received-from",
    "x-stream-offset",
)
"""How the headers begin that a broker adds on the way. They are not the sender's words, and no context."""


_QUOTED_MAX = 64


def binary_name(attributes: Mapping[str, Attribute]) -> str | None:
    """Give the first of the names that is binary; only text names anything."""
    return next((name for name in NAMES if isinstance(attributes.get(name), bytes)), None)


def complete(
    fields: Mapping[str, Any],
    names: Mapping[str, str],
    attributes: Mapping[str, Attribute],
    implied: Mapping[str, str],
) -> tuple[dict[str, Any], set[str]]:
    """Add to a body's fields what they leave open; `names` maps our names to the body's.

    What neither says is taken from what is `implied`.

    The second value has the attributes that are spoken for, and so belong into no context.
    """
    completed, spoken_for = dict(fields), set(NAMES)
    for name, field in names.items():
        if fields.get(field) is not None:
            continue
        source = name if name in attributes else _LAST_WORDS.get(name, name)
        if source in attributes:
            completed[field] = _number(attributes[source]) if name == "schema_version" else attributes[source]
            spoken_for.add(source)
        elif name in implied:
            completed[field] = implied[name]
    return completed, spoken_for


def disagreement(
    names: Mapping[str, str],
    fields: Mapping[str, Any],
    attributes: Mapping[str, Attribute],
    same: Callable[[str, str], bool],
) -> str | None:
    """Say, in words that name both, where a body and what stands beside it differ; None: nowhere."""
    for name, field in names.items():
        said, own = attributes.get(name), fields.get(field)
        if isinstance(said, str) and own is not None and not same(name, said):
            what = "tenant" if name == "tenant_id" else name
            return (
                f"the message attribute {name} differs from the {what} that the body names: "
                f"{said[:_QUOTED_MAX]!r} and {str(own)[:_QUOTED_MAX]!r}; send both alike, or only one"
            )
    return None


def add_context(
    own: str | None,
    said: Collection[str],
    attributes: Mapping[str, Attribute],
    spoken_for: Collection[str],
) -> str | None:
    """Add to the text of a context what else stands beside the body; what the body has `said` goes first."""
    found = {
        name: value
        for name, value in attributes.items()
        if name not in spoken_for and name not in said and not name.startswith(OF_THE_BROKER)
    }
    if not found:
        return own
    added = ", ".join(f"{json.dumps(name)}: {_json(value)}" for name, value in found.items())
    return f"{{{added}}}" if own is None else f"{{{added}, {own[1:-1]}}}"


def _json(value: Attribute) -> str:
    # As the rejection's column has it, so that text is told from bytes.
    return json.dumps(value if isinstance(value, str) else {"base64": base64.b64encode(value).decode()})


def _number(value: Attribute) -> Attribute | int:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
