"""Reads what came, and writes the one form in which it goes on: a native event, with every digit it had.

    Item ─▶ wire.decode ─▶ Envelope ─▶ native body + traceparent ─▶ Outgoing
                └─ Malformed ─▶ Refusal

Whatever would be rejected behind the queue for its form is refused here, before it is anybody's burden.
"""

import re
import uuid
from collections.abc import Mapping
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted

from msgspec import Struct
from pydantic import TypeAdapter, ValidationError

from processor.errors import Reason
from processor.strict_json import read
from processor.wire import FORMATS, TRACE_NAMES, Envelope, Identifier, Malformed, decode
from producers.gateway.items import Caller, Item, Refusal, Why
from producers.outgoing import Outgoing
from producers.publish import BATCH_BYTES_MAX

_MALFORMED = {Reason.NOT_UTF8: Why.MALFORMED, Reason.NOT_JSON: Why.MALFORMED, Reason.TOO_LARGE: Why.TOO_LARGE}
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)

_NATIVE_NAMES = frozenset(
    ("id", "tenant_id", "event_type", "payload", "producer", "occurred_at", "schema_version", "specversion")
)
"""Names that mean something in a native event, or would make it another format."""

_TRACES = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?"),
    "tracestate": re.compile(r"[ -~]{1,512}"),
}
"""What W3C Trace Context lets these be; whatever else came under their names is left out, as it says."""


class Event(Struct, frozen=True, gc=False):
    """One event that may go on: how it is sent, and what its sender will be told."""

    outgoing: Outgoing
    size_bytes: int
    tenant_id: str
    message_id: str
    made_id: bool


class Reading:
    """Reads items, by limits that are those of the processor behind the queue."""

    def __init__(self, *, body_bytes_max: int, depth_max: int, values_max: int, fifo: bool) -> None:
        self._body_bytes_max = min(body_bytes_max, BATCH_BYTES_MAX)
        self._depth_max = depth_max
        self._values_max = values_max
        self._fifo = fifo

    def read(self, item: Item, caller: Caller, trace: Mapping[str, str]) -> Event | Refusal:
        """Read one item; `trace` is what `trace_of` made of its caller's."""
        found = decode(
            item.body,
            item.attributes,
            size_bytes_max=self._body_bytes_max,
            depth_max=self._depth_max,
            values_max=self._values_max,
        )
        if isinstance(found, Malformed):
            return _refusal(found)
        if caller.tenant_id is not None and found.tenant_id != caller.tenant_id:
            return Refusal(
                Why.FORBIDDEN, "the event names another tenant than the key's; a key sends only as its own"
            )
        message_id, made_id = found.message_id, False
        if message_id is None:
            message_id, made_id = item.message_id, item.message_id is None
            if message_id is None:
                message_id = str(uuid.uuid4())
            elif fault := _id_fault(message_id):
                return fault
        body = _native(found, message_id)
        if isinstance(body, Refusal):
            return body
        return self._event(body, found, message_id, trace, made_id=made_id)

    def _event(
        self, body: str, envelope: Envelope, message_id: str, trace: Mapping[str, str], *, made_id: bool
    ) -> Event | Refusal:
        outgoing = Outgoing(
            body,
            attributes=trace,
            group=envelope.tenant_id,
            # Of the whole body, and not of the id alone: what differs must meet the tables, which say so.
            deduplication_id=sha256(body.encode()).hexdigest() if self._fifo else "",
        )
        size_bytes = outgoing.size_bytes()
        if size_bytes > self._body_bytes_max:
            return Refusal(
                Why.TOO_LARGE,
                f"with its envelope it has {size_bytes} bytes; at most {self._body_bytes_max} are taken",
            )
        # The envelope adds a level and a few values, which matters to what is at the limits already.
        if (
            body.count("[") + body.count("{") > self._depth_max or len(body) > 2 * self._values_max
        ) and isinstance(fault := self._decode(body), Malformed):
            return _refusal(fault)
        return Event(outgoing, size_bytes, envelope.tenant_id, message_id, made_id)

    def _decode(self, body: str) -> Envelope | Malformed:
        return decode(
            body.encode(),
            {},
            size_bytes_max=self._body_bytes_max,
            depth_max=self._depth_max,
            values_max=self._values_max,
        )


def trace_of(caller: Caller) -> dict[str, str]:
    """Give those of the caller's trace headers that are what they should be."""
    found = {}
    for name in TRACE_NAMES:
        value = caller.trace.get(name)
        if value is not None and _TRACES[name].fullmatch(value):
            found[name] = value
    return found


def _native(envelope: Envelope, message_id: str) -> str | Refusal:
    parts = [
        f'{{"id": {_quoted(message_id)}',
        f'"tenant_id": {_quoted(envelope.tenant_id)}',
        f'"event_type": {_quoted(envelope.event_type)}',
    ]
    if envelope.producer:
        parts.append(f'"producer": {_quoted(envelope.producer)}')
    if envelope.occurred_at is not None:
        parts.append(f'"occurred_at": "{envelope.occurred_at.isoformat()}"')
    if envelope.schema_version is not None:
        parts.append(f'"schema_version": {envelope.schema_version}')
    parts.append(f'"payload": {envelope.payload}')
    if envelope.context is not None:
        members = read(envelope.context, _CONTEXT_DEPTH_MAX, _CONTEXT_VALUES_MAX).value
        taken = sorted(_NATIVE_NAMES & members.keys())
        if taken:
            return _name_taken(taken)
        parts.append(envelope.context[1:-1])
    return ", ".join(parts) + "}"


# What it is made of has been read within the limits that are set.
_CONTEXT_DEPTH_MAX = 1000
_CONTEXT_VALUES_MAX = 2 * BATCH_BYTES_MAX


def _name_taken(names: list[str]) -> Refusal:
    message = "a name that means something else in a native event, which is what the gateway passes on"
    errors = tuple({"pointer": f"/{name}", "rule": "name_taken", "message": message} for name in names)
    return Refusal(Why.INVALID, f"{', '.join(names)}: {message}; give it another name", errors)


def _id_fault(message_id: str) -> Refusal | None:
    try:
        _IDENTIFIER.validate_python(message_id)
    except ValidationError as error:
        message = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
        words = f"the idempotency key is no message id: {message.removeprefix('Value error, ')}"
        return Refusal(Why.INVALID, words, ({"pointer": "", "rule": "idempotency_key", "message": words},))
    return None


def _refusal(fault: Malformed) -> Refusal:
    words = str(fault.detail["message"])
    why = _MALFORMED.get(fault.reason)
    if why is None and words.endswith(FORMATS):
        why = Why.MALFORMED
    if why is not None:
        return Refusal(why, words)
    errors = fault.detail.get("errors")
    if errors is None:
        field = re.match(r"(\w+): ", words)
        errors = [{"pointer": f"/{field[1]}" if field else "", "rule": "format", "message": words}]
    return Refusal(Why.INVALID, words, tuple(errors))
