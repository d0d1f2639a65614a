"""Ids that are unique within some values of the payload alone, made part of the key that refuses duplicates.

    event type created, scope /user_id, payload {"user_id": "u1"}      producer of the message
                                          the event names no producer   created/u1
                                          the event names app           created/u1/app

The same id of another user, or of another event type, is another message then.
"""

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from processor.wire.formats import IDENTIFIER_LENGTH_MAX, Envelope
from processor.wire.json_pointer import follow, steps


@dataclass(frozen=True, slots=True)
class Unscoped:
    """Why an event has no key: which value of its payload can't be part of it, and in words."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class IdScope:
    """The pointers of one event type, and the steps that they are made of."""

    pointers: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, pointers: tuple[str, ...]) -> "IdScope":
        """Read JSON pointers (RFC 6901); one that is none leads nowhere."""
        return cls(pointers, tuple(steps(pointer) for pointer in pointers))

    def producer(self, envelope: Envelope) -> str | Unscoped:
        """Give the producer that the message is stored with: event type, values, and what the event named.

        Each part is written so that no other parts come to the same text. A scope has a fixed number of
        values, so one more part is the producer.
        """
        parts = [envelope.event_type]
        for pointer, path in zip(self.pointers, self.paths, strict=True):
            value = _text(follow(envelope.payload_value, path))
            if value is None:
                return Unscoped(
                    pointer,
                    f"{pointer}: ids of event type {envelope.event_type!r} are unique within this value "
                    "alone; expected a text, a number or a boolean (let the schema require it)",
                )
            parts.append(value)
        if envelope.producer:
            parts.append(envelope.producer)
        written = "/".join(map(_part, parts))
        if len(written) > IDENTIFIER_LENGTH_MAX:
            return Unscoped(
                self.pointers[-1],
                f"{', '.join(self.pointers)}: event type, these values and the producer are {len(written)} "
                f"characters together, and are part of the key; expected at most {IDENTIFIER_LENGTH_MAX} "
                "(let the schema bound them)",
            )
        return written


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Write a value as it counts; None for what is no scalar. A number has one text, however spelled."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal():
            # By its digits: whatever calculates would round to the precision of the context. Of a float the
            # shortest spelling is what was sent, or it would have come as a Decimal.
            digits = f"{Decimal(str(value)):f}"
            digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
            return "0" if digits == "-0" else digits
        case _:
            return None


def _part(text: str) -> str:
    # A control character, and half of a surrogate pair, is what no id may have.
    if text.isprintable() and "/" not in text and "%" not in text:
        return text
    return "".join(map(_character, text))


def _character(character: str) -> str:
    if character in "/%" or unicodedata.category(character) in ("Cc", "Cs"):
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character
