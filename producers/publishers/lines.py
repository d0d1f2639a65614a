"""Reads messages from the lines of a file for `producers send`; lines are not changed unless asked.

bytes ─▶ line ─▶ JSON? ─▶ tenant, id, payload digest (for the manifest) ─▶ Outgoing
                   └────▶ BadLine
"""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from processor.errors import SettingsError
from processor.wire.manifest import payload_digest, read_exactly, value_digest
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import BATCH_BYTES_MAX

_PULSE = frozenset({"product_sku", "used_amount"})
_STORED = ("tenant_id", "product_sku", "used_amount", "use_unity")
"""The fields of a pulse's payload. id, producer and occurred_at are the envelope's, others the context's."""


class LineStream(Protocol):
    """The input of lines."""

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line with its line end, or its first `size` bytes; empty at the end."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not sent; `number` counts from 1."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class LineReading:
    """How lines become messages.

    With `tenant_id` and `event_type` each line is a payload, and these go into message attributes, with a
    generated id. Otherwise each line is a whole body; `make_ids` adds an id to native events without one.
    `raw` accepts lines that are not JSON.
    """

    tenant_id: str | None = None
    event_type: str | None = None
    producer: str | None = None
    raw: bool = False
    make_ids: bool = False

    def __post_init__(self) -> None:
        if (self.tenant_id is None) != (self.event_type is None):
            raise SettingsError("--tenant and --event-type go together: they make each line a payload")
        if self.producer is not None and self.tenant_id is None:
            raise SettingsError("--producer goes with --tenant and --event-type; a whole body names its own")
        if self.make_ids and self.tenant_id is not None:
            raise SettingsError(
                "--make-ids is for whole bodies; with --tenant each payload gets an id anyhow"
            )


def read_messages(
    stream: LineStream, reading: LineReading, report: Callable[[BadLine], None]
) -> Iterator[Outgoing]:
    """Yield a message for each valid line, and report each invalid one; empty lines are skipped."""
    number = 0
    while raw := stream.readline(BATCH_BYTES_MAX + 2):
        number += 1
        line = raw.rstrip(b"\r\n")
        if len(line) > BATCH_BYTES_MAX:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(BATCH_BYTES_MAX)
            report(BadLine(number, f"longer than the {BATCH_BYTES_MAX} bytes that SQS takes"))
        elif line.strip():
            try:
                message = _message(line, number, reading)
            except ValueError as error:
                report(BadLine(number, str(error)))
            else:
                yield message


def _message(line: bytes, number: int, reading: LineReading) -> Outgoing:
    """Make a line's message; raises ValueError with the reason if it can't be sent."""
    try:
        body = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; SQS carries text only") from None
    message = Outgoing(body, label=f"line {number}")
    try:
        if reading.tenant_id is None:
            message = _whole_body(message, read_exactly(body), make_id=reading.make_ids)
        else:
            message = replace(message, digest=payload_digest(body))
    except ValueError as error:
        if not reading.raw:
            why = (
                f"{error.msg} (character {error.pos + 1})"
                if isinstance(error, json.JSONDecodeError)
                else error
            )
            raise ValueError(f"not JSON: {why}; --raw sends it as it is") from None
    return message if reading.tenant_id is None else _payload(message, reading)


def _whole_body(message: Outgoing, value: Any, *, make_id: bool) -> Outgoing:  # noqa: ANN401 - any JSON
    """Make the message of a whole body, with the facts that the manifest and the fair queue need."""
    body = message.body
    if make_id and isinstance(value, dict) and _is_native(value) and "id" not in value:
        # Inserted into the text, because serializing the event again would round its numbers.
        value["id"] = str(uuid.uuid4())
        body = f'{{"id":"{value["id"]}",{body.lstrip()[1:]}'
    tenant_id, message_id, digest = _claims(value)
    return replace(
        message, body=body, tenant_id=tenant_id, message_id=message_id, digest=digest, group=tenant_id
    )


def _payload(message: Outgoing, reading: LineReading) -> Outgoing:
    """Put the envelope of a bare payload into message attributes, with a generated id."""
    message_id = str(uuid.uuid4())
    attributes = {
        "tenant_id": reading.tenant_id,
        "event_type": reading.event_type,
        "message_id": message_id,
        "producer": reading.producer,
    }
    return replace(
        message,
        attributes={name: value for name, value in attributes.items() if value is not None},
        tenant_id=reading.tenant_id,
        message_id=message_id,
        group=reading.tenant_id,
    )


def _claims(value: Any) -> tuple[str | None, str | None, str | None]:  # noqa: ANN401 - any JSON
    """Return tenant, id and payload digest of a body; None for each that is missing."""
    if not isinstance(value, dict):
        return None, None, None
    if "specversion" in value:
        digest = value_digest(value["data"]) if "data" in value else None
        return _text(value.get("tenantid")), _text(value.get("id")), digest
    if _is_native(value):
        return _text(value.get("tenant_id")), _text(value.get("id")), value_digest(value["payload"])
    if value.keys() >= _PULSE:
        # As it will be stored: under the canonical four names, for either spelling.
        pulse = {
            {"tenant": "tenant_id", "use_unit": "use_unity"}.get(name, name): value[name] for name in value
        }
        stored = {name: pulse[name] for name in _STORED if name in pulse}
        return _text(pulse.get("tenant_id")), _text(pulse.get("id")), value_digest(stored)
    return None, None, None


def _is_native(value: dict[str, Any]) -> bool:
    return "event_type" in value and "payload" in value and "specversion" not in value


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON
    return value if type(value) is str else None
