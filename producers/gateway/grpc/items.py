"""Converts gRPC requests to items of the intake, and the intake's results to gRPC replies.

IngestRequest ─▶ Item │ Refusal (its fields contradict each other)
Taken │ Refusal ─▶ Result, or status and trailing metadata
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import grpc
from google.protobuf.message import Message

from processor.runtime.escaping import escaped
from processor.wire.formats import pointer
from producers.gateway.items import Item, Refusal, Taken, Why, Word
from producers.protos import ingest_pb2 as pb

STATUS = {
    Why.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Why.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Why.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    # The status that gRPC itself gives for a message that is too large. It has no retry delay.
    Why.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Why.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Why.OVER_QUOTA: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Why.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}

DETAIL_LENGTH_MAX, STATUS_LENGTH_MAX = 1000, 300
REFUSAL_BYTES_MAX = 3000
"""A client accepts 8 KiB of metadata, and binary values grow by a third in it."""

RESULTS_BYTES_MAX = 2 * 1024 * 1024
"""A client accepts replies of 4 MiB by default. Beyond this size refusals are shortened."""

_RESERVED = frozenset(
    (
        *("id", "tenant_id", "event_type", "payload", "producer", "occurred_at", "schema_version"),
        *("specversion", "message_id"),
    )
)


@dataclass(frozen=True, slots=True)
class Read:
    """One parsed event: an item, or a refusal.

    `by_field`: the event came in fields of the request, so that pointers must name those fields.
    """

    item: Item | Refusal
    by_field: bool = False


def read_event(request: pb.IngestRequest, idempotency_key: str | None) -> Read:
    """Convert one IngestRequest to an item."""
    key = request.idempotency_key or idempotency_key
    match request.WhichOneof("item"):
        case "event":
            item = _of_event(request.event)
            return Read(item if isinstance(item, Refusal) else replace(item, message_id=key), by_field=True)
        case "raw":
            raw = request.raw
            body = raw.text.encode() if raw.WhichOneof("content") == "text" else raw.body
            return Read(Item(body, dict(raw.attributes), key))
        case _:
            return Read(invalid("/item", "missing", "neither event nor raw is there; send one of them"))


def unreadable(kind: type[Message]) -> Refusal:
    """Make the refusal of bytes that are not such a message."""
    name = kind.DESCRIPTOR.file.name.rpartition("/")[2]
    return Refusal(Why.MALFORMED, f"the bytes are not a valid {kind.DESCRIPTOR.name}; compare it with {name}")


def too_many_items(number: int, items_max: int) -> Refusal | None:
    """Return a refusal if one message has more items than the limit."""
    if number <= items_max:
        return None
    words = f"{number} events in one message; at most {items_max} are taken (GATEWAY_ITEMS_MAX)"
    return Refusal(Why.TOO_LARGE, words)


def _of_event(event: pb.Event) -> Item | Refusal:
    match event.WhichOneof("payload"):
        case "payload_json":
            payload = event.payload_json.encode()
        case "payload_json_bytes":
            payload = event.payload_json_bytes
        case _:
            return invalid("/payload", "missing", "expected the payload as JSON in payload_json")
    # An empty tenant_id means the key's tenant.
    named = {"tenant_id": event.tenant_id, "event_type": event.event_type}
    if event.id:
        named["message_id"] = event.id
    if event.producer:
        named["producer"] = event.producer
    try:
        occurred_at = _occurred_at(event)
    except ValueError:
        return invalid("/occurred_at", "timestamp", "time out of range: years go from 0001 to 9999")
    if occurred_at is not None:
        named["occurred_at"] = occurred_at
    if event.schema_version:
        named["schema_version"] = str(event.schema_version)
    extensions = _extensions(event)
    return extensions if isinstance(extensions, Refusal) else Item(payload, extensions | named)


def _occurred_at(event: pb.Event) -> str | None:
    match event.WhichOneof("occurred"):
        case "occurred_at":
            # Written as text: a protobuf timestamp has nanoseconds, Python's datetime has microseconds.
            return event.occurred_at.ToJsonString()
        case "occurred_at_text":
            return event.occurred_at_text
        case _:
            return None


def _extensions(event: pb.Event) -> dict[str, str] | Refusal:
    for name in event.extensions:
        if name in _RESERVED:
            where = pointer(["extensions", name])
            return invalid(
                where, "name_taken", f"{name} means something else beside it; give it another name"
            )
    return dict(event.extensions)


def invalid(where: str, rule: str, message: str) -> Refusal:
    """Make the refusal of an event with a fault at one pointer."""
    return Refusal(
        Why.INVALID,
        f"{where[1:]}: {message}",
        ({"pointer": where, "rule": rule, "message": message},),
    )


# ── words on the way back ─────────────────────────────────────────────────────────────────────────────


class Results:
    """Makes the results of one reply, within the size that a client accepts."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def of(self, word: Word, read: Read) -> pb.Result:
        """Make the result of one event."""
        if isinstance(word, Taken):
            result = pb.Result(taken=taken(word))
        else:
            room = DETAIL_LENGTH_MAX if self.size_bytes < RESULTS_BYTES_MAX else 0
            result = pb.Result(refusal=refusal(word, by_field=read.by_field, size_bytes_max=room))
        self.size_bytes += result.ByteSize() + 4
        return result

    def of_all(self, words: Iterable[Word], reads: Iterable[Read]) -> list[pb.Result]:
        """Make the results of several events, in order."""
        return [self.of(word, read) for word, read in zip(words, reads, strict=True)]


def status_words(word: Refusal) -> str:
    """Return the message of a status, which is sent in a header."""
    return _cut(word.detail, STATUS_LENGTH_MAX)


def taken(word: Taken) -> pb.Taken:
    """Make the result of an accepted event."""
    return pb.Taken(message_id=word.message_id, delivery_id=word.delivery_id, made_id=word.made_id)


def refusal(word: Refusal, *, by_field: bool, size_bytes_max: int = REFUSAL_BYTES_MAX) -> pb.Refusal:
    """Make the result of a refused event; faults beyond the size in bytes are left out."""
    said = pb.Refusal(
        code=f"CODE_{word.why.name}",
        detail=_cut(word.detail, min(DETAIL_LENGTH_MAX, max(100, size_bytes_max))),
        retry_after_s=word.retry_after_s,
    )
    size_bytes = said.ByteSize()
    for error in word.errors:
        field = pb.FieldError(**{name: _cut(str(error.get(name, "")), 256) for name in _FIELD_ERROR})
        if by_field and field.pointer == "/message_id":
            field.pointer = "/id"
        size_bytes += field.ByteSize() + 3
        if size_bytes > size_bytes_max:
            break
        said.errors.append(field)
    return said


def trailing(word: Refusal, *, by_field: bool = False) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata of a call that ends with this refusal."""
    metadata: list[tuple[str, str | bytes]] = [
        ("refusal-code", word.why.word),
        ("ingest-refusal-bin", refusal(word, by_field=by_field).SerializeToString()),
    ]
    if word.retry_after_s is not None:
        metadata += [
            ("retry-after", str(word.retry_after_s)),
            ("grpc-retry-pushback-ms", str(word.retry_after_s * 1000)),
        ]
    return tuple(metadata)


_FIELD_ERROR = ("pointer", "rule", "message")


def _cut(text: str, length_max: int) -> str:
    # Escaped, as an error message may quote half of a surrogate pair, which a protobuf string can't hold, or
    # control characters, which a terminal would obey.
    whole = escaped(text)
    return whole if len(whole) <= length_max else whole[: length_max - 1] + "…"
