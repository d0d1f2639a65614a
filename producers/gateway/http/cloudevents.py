"""CloudEvents in binary mode: attributes in `ce-` headers, data in the body, made into one structured event.

Structured, because then one reader takes all of them, and as many extensions as it may have: a message on SQS
has ten attributes at the most.
"""

import re
from urllib.parse import unquote_to_bytes

import orjson

from processor.strict_json import JsonFault, read
from producers.gateway.http import Limits
from producers.gateway.http.problems import Headers, refused

PREFIX = b"ce-"
_NAME = re.compile(rb"[a-z0-9]{1,64}")
_RESERVED = {b"data", b"data_base64", b"datacontenttype"}


def is_binary(media_type: str, names: list[bytes]) -> bool:
    """Whether a request is a CloudEvent in binary mode, by the rule of the HTTP binding."""
    return b"ce-specversion" in names and not media_type.startswith("application/cloudevents")


def structured(headers: Headers, media_type: str, body: bytes, limits: Limits) -> bytes:
    """Write the event as structured JSON; data keeps every digit. Raises Refused for what can't be read."""
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            shown = name.decode("latin-1")[:64]
            if not _NAME.fullmatch(attribute) or attribute in _RESERVED:
                raise refused("malformed", f"the header {shown}: no attribute of CloudEvents has this name")
            if attribute.decode() in attributes:
                raise refused("malformed", f"the header {shown} is there twice; send it once")
            attributes[attribute.decode()] = _value(shown, value)
    attributes["datacontenttype"] = media_type
    text = orjson.dumps(attributes)
    if not body.strip():
        return text
    # Only a body that is one whole JSON value may be put between braces of ours: any other could close them,
    # and say who it is from itself.
    try:
        read(body.decode(), limits.json_depth_max, limits.json_values_max)
    except UnicodeDecodeError as error:
        raise refused("malformed", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonFault as fault:
        raise refused("malformed", f"the body is not JSON as we take it: {fault}") from None
    return text[:-1] + b',"data":' + body + b"}"


def _value(shown: str, raw: bytes) -> str:
    # A receiver takes quotes off before it decodes, as the binding says for senders of its first version.
    if len(raw) > 1 and raw.startswith(b'"') and raw.endswith(b'"'):
        raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise refused("malformed", f"the header {shown}: expected UTF-8, percent-encoded") from None
