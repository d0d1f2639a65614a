"""Makes ids that are unique only within some payload values part of the duplicate key.

    event type created, scope /user_id, payload {"user_id": "u1"}      producer of the message
                                          the event names no producer   created/u1
                                          the event names app           created/u1/app

The same id of another user, or of another event type, is then another message.
"""

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from processor.wire.formats import IDENTIFIER_LENGTH_MAX, Envelope
from processor.wire.json_pointer import follow, steps


@dataclass(frozen=True, slots=True)
class Unscoped:
    """Why an event has no key: the pointer of the value, and a message."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class IdScope:
    """The pointers of one event type, and their steps."""

    pointers: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, pointers: tuple[str, ...]) -> "IdScope":
        """Parse JSON pointers (RFC 6901); an invalid one finds no value."""
        return cls(pointers, tuple(steps(pointer) for pointer in pointers))

    def producer(self, envelope: Envelope) -> str | Unscoped:
        """Return the stored producer: event type, values, and the producer of the event.

        The encoding is injective. A scope has a fixed number of values, so one more part is the producer.
        """
        parts = [envelope.event_type]
        for pointer, path in zip(self.pointers, self.paths, strict=True):
            value = _text(follow(envelope.payload_value, path))
            if value is None:
                return Unscoped(
                    pointer,
                    f"{pointer}: ids of event type {envelope.event_type!r} are unique only within this "
                    "value; expected a string, a number or a boolean (make it required in the schema)",
                )
            parts.append(value)
        if envelope.producer:
            parts.append(envelope.producer)
        written = "/".join(map(_part, parts))
        if len(written) > IDENTIFIER_LENGTH_MAX:
            return Unscoped(
                self.pointers[-1],
                f"{', '.join(self.pointers)}: event type, these values and the producer form the key "
                f"and have {len(written)} characters; expected at most {IDENTIFIER_LENGTH_MAX} "
                "(limit them in the schema)",
            )
        return written


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return the canonical text of a scalar; None: not a scalar. Equal numbers have one text."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal():
            # Formatted without arithmetic, which would round to the precision of the context. The shortest
            # spelling of a float is what was sent, or it would be a Decimal.
            digits = f"{Decimal(str(value)):f}"
            digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
            return "0" if digits == "-0" else digits
        case _:
            return None


def _part(text: str) -> str:
    # Control characters and lone surrogates are not allowed in ids.
    if text.isprintable() and "/" not in text and "%" not in text:
        return text
    return "".join(map(_character, text))


def _character(character: str) -> str:
    if character in "/%" or unicodedata.category(character) in ("Cc", "Cs"):
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character
