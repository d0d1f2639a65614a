"""Converts the headers of a binary CloudEvent to attributes of the wire format.

ce-id: caf%C3%A9, content-type: application/json ─▶ {"ce-id": "café", "content-type": "application/json"}
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from producers.gateway.http.problems import Headers, refused

PREFIX = b"ce-"
BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"
VERSION = "ce-specversion"

_NAME = re.compile(rb"[a-z0-9]{1,64}")
_RESERVED = {b"data", b"data_base64"}


def attributes_of(headers: Headers) -> Mapping[str, str]:
    """Return the `ce-` headers and the Content-Type. Raises RequestRefused if one is malformed."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            shown = name.decode("latin-1")[:68]
            if not _NAME.fullmatch(attribute) or attribute in _RESERVED:
                raise refused("malformed", f"the header {shown}: no attribute of CloudEvents has this name")
            if shown in found:
                raise refused("malformed", f"the header {shown} is repeated; send it once")
            found[shown] = _value(shown, value)
        elif name == b"content-type":
            found["content-type"] = value.decode("latin-1").strip()
    return found


def _value(shown: str, raw: bytes) -> str:
    # White space around a value is not part of it (RFC 9110, 5.5).
    raw = raw.strip()
    # The CloudEvents HTTP binding requires that quotes, as its first version sent them, are removed first.
    if len(raw) > 1 and raw.startswith(b'"') and raw.endswith(b'"'):
        raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise refused("malformed", f"the header {shown}: expected UTF-8, percent-encoded") from None
