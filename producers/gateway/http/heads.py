"""Reads the headers of a request: body, credentials, and attributes of the event."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeAlias

from processor.wire import beside
from producers.gateway.http import HttpLimits, cloudevents
from producers.gateway.http.problems import Headers, refused

Fields: TypeAlias = Mapping[bytes, bytes]

KEY_LENGTH_MAX = 256

NAMING = {b"x-" + name.replace("_", "-").encode(): name for name in beside.NAMES}
"""The headers with attributes of the event: X-Tenant-Id, X-Event-Type, X-Message-Id and so on."""

_BEGINNINGS = (b"x-", cloudevents.PREFIX[:2])

_ONCE = (b"content-type", b"content-encoding", b"authorization", b"x-api-key", b"idempotency-key", *NAMING)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_ENCODINGS = {b"": "", b"identity": "", b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}
_JSON_TYPE = re.compile(r"(?:application|text)/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.ASCII)
_PARAMETER = re.compile(r';\s*([^=;"\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")
_QUOTED_KEY = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


@dataclass(frozen=True, slots=True)
class Body:
    """The headers about the body: its media type in lower case, length and content encoding, if given."""

    media_type: str
    length: int | None
    encoding: str


def fields_of(headers: Headers) -> Fields:
    """Return the headers by name. Raises RequestRefused if a single-valued header is repeated."""
    fields = dict(headers)
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        for name in _ONCE:
            if names.count(name) > 1:
                raise refused("malformed", f"the header {name.decode()} is repeated; send it once")
    return fields


def body_of(fields: Fields, limits: HttpLimits, default_type: bytes = b"") -> Body:
    """Read the headers about the body. Raises RequestRefused if it is not JSON, or announced as too large."""
    encoding = _ENCODINGS.get(fields.get(b"content-encoding", b"").strip().lower())
    if encoding is None:
        raise refused(
            "unsupported_media_type",
            "the Content-Encoding is not known; expected gzip, deflate, or none",
            headers=((b"accept-encoding", b"gzip, deflate"),),
        )
    media_type = _media_type_of(fields.get(b"content-type", default_type))
    length = int(found) if (found := fields.get(b"content-length", b"")).isdigit() else None
    if length is not None and length > limits.body_bytes_max:
        raise too_large(limits)
    return Body(media_type, length, encoding)


@lru_cache(maxsize=256)
def _media_type_of(content_type: bytes) -> str:
    """Parse a Content-Type. Cached, as senders repeat a few values with every event."""
    text = content_type.decode("latin-1")
    media_type = text.partition(";")[0].strip().lower()
    given = [(name.lower(), value.strip('"').lower()) for name, value in _PARAMETER.findall(text)]
    parameters = dict(given)
    if len(parameters) < len(given):
        raise refused("malformed", "the Content-Type names a parameter twice; name it once")
    if parameters.get("charset", "utf-8") not in ("utf-8", "utf8"):
        raise refused("unsupported_media_type", "the charset is not utf-8; expected JSON in UTF-8")
    if not media_type:
        raise refused("unsupported_media_type", "Content-Type is missing; expected application/json")
    if not _JSON_TYPE.fullmatch(media_type):
        raise refused(
            "unsupported_media_type",
            f"the Content-Type is {media_type[:64]!r}; expected application/json, "
            "application/cloudevents+json or application/cloudevents-batch+json",
        )
    return media_type


def too_large(limits: HttpLimits) -> Exception:
    """Make the exception for a body over the limit, announced or received."""
    return refused(
        "too_large",
        f"the body has more than {limits.body_bytes_max} bytes (GATEWAY_BODY_BYTES_MAX); send less at once",
    )


def credentials_of(fields: Fields) -> str | None:
    """Return the API key as sent, from X-API-Key, else from Authorization; None: neither."""
    found = fields.get(b"x-api-key") or fields.get(b"authorization")
    return None if found is None else found.decode("latin-1").strip()


def idempotency_key_of(fields: Fields) -> str | None:
    """Return the Idempotency-Key without quotes, if any. Raises RequestRefused if it can't be an id."""
    raw = fields.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1").strip()
    if key.startswith('"'):
        # The IETF draft defines a quoted string (structured fields); nearly all clients send no quotes.
        matched = _QUOTED_KEY.fullmatch(key)
        key = "" if matched is None else re.sub(r"\\(.)", r"\1", matched[1])
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise refused(
            "malformed", f"Idempotency-Key: expected 1 to {KEY_LENGTH_MAX} printable ASCII characters"
        )
    return key


def beside_of(fields: Fields, headers: Headers) -> Mapping[str, str]:
    """Return the event's attributes from the headers, as attributes of the wire format.

    Raises RequestRefused if one is malformed.
    """
    for header in fields:
        if header[:2] in _BEGINNINGS:
            break
    else:
        return _NOTHING
    found: dict[str, str] = {}
    if any(header.startswith(cloudevents.PREFIX) for header in fields):
        found |= cloudevents.attributes_of(headers)
    for header, name in NAMING.items():
        if header in fields:
            try:
                found[name] = fields[header].strip().decode()
            except UnicodeDecodeError:
                raise refused("malformed", f"the header {header.decode()}: expected UTF-8") from None
    return found


def trace_of(fields: Fields, headers: Headers) -> Mapping[str, str]:
    """Return the W3C trace context; a malformed one is ignored, as the standard requires."""
    parent = fields.get(b"traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return {}
    trace = {"traceparent": parent.decode()}
    state = b",".join(value for name, value in headers if name == b"tracestate")
    if _TRACESTATE.fullmatch(state):
        trace["tracestate"] = state.decode()
    return trace
