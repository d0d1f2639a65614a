"""Envelopes of SNS, EventBridge and S3, removed where an operator said that a queue carries them.

Never guessed from a body: any tenant could write such an object, and would choose what stands in it.
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
    """What was inside.

    `attributes` stand beside the body, as the queue's own do. `implied` fills what neither says. `context` is
    the JSON text of an object of what else the service said; None: nothing. `sent_at` is when the service was
    handed the event; None: it does not say.
    """

    body: bytes
    attributes: Mapping[str, Attribute] = NO_ATTRIBUTES
    implied: Mapping[str, str] = NOTHING
    context: str | None = None
    sent_at: datetime | None = None


class Unwrapper(Protocol):
    """Takes one service's envelope off."""

    def __call__(self, document: Document, queue: str, *, typed: bool) -> Unwrapped | Malformed:
        """Give what is in a body that came from a queue, or say in words why it is none of the service's.

        `typed` says that events get their type by the rules of the queue, whatever the service calls them.
        Never raises, whatever the JSON is.
        """


def refused(message: str, claimed: Claimed | None = None) -> Malformed:
    """Reject a body, in words that say what is wrong with it."""
    return invalid(message, claimed or Claimed())


def identifier(value: object) -> str | None:
    """Give a value that may name something; None: it can't."""
    if isinstance(value, str) and 0 < len(value) <= IDENTIFIER_LENGTH_MAX and not no_identifier(value):
        return value
    return None


def moment(name: str, value: object, expected: str, claimed: Claimed | None = None) -> datetime | Malformed:
    """Read a service's time, which decides in which hour an event counts; or say what is wrong with it."""
    try:
        return moment_of(value)
    except ValueError as error:
        return refused(f"{name}: {error}; {expected}", claimed)
