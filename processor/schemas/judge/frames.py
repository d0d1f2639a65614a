"""What a worker and its judge process say to each other: frames of a length and one msgpack value.

worker ──Compile──▶ judge ──Usable | Unusable──▶ worker
       ──Judge────▶       ──Valid | Invalid, then Found | Unreadable | Broken──▶
"""

from struct import Struct as Binary
from typing import TypeAlias

from msgspec import Struct, msgpack

LENGTH = Binary("!Q")


class Compile(Struct, frozen=True, tag=True):
    """Take a schema under a key, by which `Judge` then names it."""

    key: int
    definition: str
    formats: str


class JudgeRequest(Struct, frozen=True, tag=True):
    """Judge a payload, which is JSON as `strict_json` reads it."""

    key: int
    payload: str


class Hello(Struct, frozen=True, tag=True):
    """The judge has started."""


class Usable(Struct, frozen=True, tag=True):
    """The schema compiles.

    Judging by it costs at most so many nanoseconds for two bytes of a payload; the second is for one that may
    have numbers of many digits or large exponents. A value has at most so many errors. None: too many, or
    nobody can tell.
    """

    price_ns: int | None
    price_unusual_ns: int | None
    errors_max: int | None


class Unusable(Struct, frozen=True, tag=True):
    """The schema does not compile; the words say why."""

    words: str


class Valid(Struct, frozen=True, tag=True):
    """The payload is valid."""


class Invalid(Struct, frozen=True, tag=True):
    """The payload is not valid; where is being searched for."""


class Found(Struct, frozen=True, tag=True):
    """Where the payload breaks its schema: pointer, rule and message of each, and how many in all.

    The count is None where the first alone was searched for.
    """

    errors: list[tuple[str, str, str]]
    count: int | None


class NotUnicode(Struct, frozen=True, tag=True):
    """The payload is no Unicode text."""

    words: str


class Broken(Struct, frozen=True, tag=True):
    """The library failed at this payload."""

    words: str


Request: TypeAlias = Compile | JudgeRequest
Reply: TypeAlias = Hello | Usable | Unusable | Valid | Invalid | Found | NotUnicode | Broken

_encode = msgpack.Encoder().encode
decode_request = msgpack.Decoder(Request).decode
decode_reply = msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """Give a message as it is sent."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body
