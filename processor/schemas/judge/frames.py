"""Defines the messages between a worker and its judge process: a length and one msgpack value.

worker ──Compile──▶ judge ──Usable | Unusable──▶ worker
       ──Judge────▶       ──Valid | Invalid, then Found | Unreadable | Broken──▶
"""

from struct import Struct as Binary
from typing import TypeAlias

from msgspec import Struct, msgpack

LENGTH = Binary("!Q")


class Compile(Struct, frozen=True, tag=True):
    """Compile a schema under a key, which `JudgeRequest` refers to."""

    key: int
    definition: str
    formats: str


class JudgeRequest(Struct, frozen=True, tag=True):
    """Validate a payload, which is JSON for `strict_json`."""

    key: int
    payload: str


class Hello(Struct, frozen=True, tag=True):
    """The judge has started."""


class Usable(Struct, frozen=True, tag=True):
    """The schema compiles.

    Validation costs at most so many nanoseconds per two bytes of a payload; the second value is for payloads
    with numbers of many digits or large exponents. A value has at most so many errors. None: too many, or
    unknown.
    """

    price_ns: int | None
    price_unusual_ns: int | None
    errors_max: int | None


class Unusable(Struct, frozen=True, tag=True):
    """The schema does not compile, and why."""

    words: str


class Valid(Struct, frozen=True, tag=True):
    """The payload is valid."""


class Invalid(Struct, frozen=True, tag=True):
    """The payload is invalid; the search for errors follows."""


class Found(Struct, frozen=True, tag=True):
    """The errors of the payload: pointer, rule and message of each, and their count.

    The count is None if only the first error was searched for.
    """

    errors: list[tuple[str, str, str]]
    count: int | None


class NotUnicode(Struct, frozen=True, tag=True):
    """The payload is not valid Unicode."""

    words: str


class Broken(Struct, frozen=True, tag=True):
    """The library failed on this payload."""

    words: str


Request: TypeAlias = Compile | JudgeRequest
Reply: TypeAlias = Hello | Usable | Unusable | Valid | Invalid | Found | NotUnicode | Broken

_encode = msgpack.Encoder().encode
decode_request = msgpack.Decoder(Request).decode
decode_reply = msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """Encode a message."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body
