"""Removes the envelopes of SNS, EventBridge and S3, if the queue is configured for them.

Envelopes are never guessed from a body: a tenant could forge such a body, and choose its fields.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from processor.wire.beside import no_identifier
from processor.wire.envelope import invalid
from processor.wire.formats import IDENTIFIER_LENGTH_MAX, Attribute, Claimed, Malformed
from processor.wire.rfc3339 import moment_of
from processor.wire.strict_json import Document

NOTHING: Mapping[str, str] = {}
NO_ATTRIBUTES: Mapping[str, Attribute] = {}


class Unwrapped(Struct, frozen=True, gc=False):
    """The content of an envelope.

    `attributes` are like those of the queue. `implied` fills missing fields. `context` is a JSON object of
    the service's other values; None: none. `sent_at` is the time when the service received the event; None:
    unknown.
    """

    body: bytes
    attributes: Mapping[str, Attribute] = NO_ATTRIBUTES
    implied: Mapping[str, str] = NOTHING
    context: str | None = None
    sent_at: datetime | None = None


class Unwrapper(Protocol):
    """Removes the envelope of one service."""

    def __call__(self, document: Document, queue: str, *, typed: bool) -> Unwrapped | Malformed:
        """Return the content of a body, or a rejection if the body is not the service's envelope.

        `typed`: the rules of the queue set the event type. Never raises, whatever the JSON is.
        """


def refused(message: str, claimed: Claimed | None = None) -> Malformed:
    """Reject a body with a message."""
    return invalid(message, claimed or Claimed())


def identifier(value: object) -> str | None:
    """Return a value that is a valid identifier; None: invalid."""
    if isinstance(value, str) and 0 < len(value) <= IDENTIFIER_LENGTH_MAX and not no_identifier(value):
        return value
    return None


def moment(name: str, value: object, expected: str, claimed: Claimed | None = None) -> datetime | Malformed:
    """Parse a service's timestamp, which decides the hour that an event counts in, or reject it."""
    try:
        return moment_of(value)
    except ValueError as error:
        return refused(f"{name}: {error}; {expected}", claimed)
