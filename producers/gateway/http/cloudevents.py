"""CloudEvents whose attributes come in `ce-` headers, made into one structured event with the body.

    ce-specversion, no CloudEvents type   the body is the data (binary mode)
    beside a structured event             headers add what it does not say, and must agree with what it says

Structured, because then one reader takes all of them, and as many extensions as it may have.
"""

import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any
from urllib.parse import unquote_to_bytes

from processor.rfc3339 import moment_of, rest_of
from processor.strict_json import Document, JsonFault, read
from processor.wire import pointer
from producers.gateway.http import Limits
from producers.gateway.http.problems import Headers, refused

PREFIX = b"ce-"
BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"

_NAME = re.compile(rb"[a-z0-9]{1,64}")
_RESERVED = {b"data", b"data_base64", b"datacontenttype"}


def structured(headers: Headers, media_type: str, body: bytes, limits: Limits) -> bytes:
    """Write the event of these headers and this body; data keeps every digit.

    Raises Refused for what can't be read, for what differs, and for headers that are nobody's.
    """
    said = _attributes(headers)
    if media_type == BATCH_TYPE:
        raise refused(
            "malformed", "ce- headers beside a batch: they are one event's; put them into the events"
        )
    if media_type.startswith("application/cloudevents"):
        return _completed(_document(body, limits), said)
    if "specversion" not in said:
        raise refused(
            "malformed", "ce- headers without ce-specversion; send ce-specversion: 1.0, or none of them"
        )
    texts = {name: _quoted(value) for name, value in said.items()}
    for name, value in headers:
        if name == b"content-type":
            texts["datacontenttype"] = _quoted(value.decode("latin-1").strip())
    if body.strip():
        # Only a body that is one whole JSON value may be put between braces of ours: any other could close
        # them, and say who it is from itself.
        texts["data"] = _document(body, limits).text
    return _object(texts)


def _completed(document: Document, said: Mapping[str, str]) -> bytes:
    if not isinstance(document.value, dict):
        return document.text.encode()
    texts = dict(document.member_texts)
    for name, value in said.items():
        own = document.value.get(name)
        if own is None:
            texts[name] = _quoted(value)
        elif not _same(name, own, value):
            words = (
                f"the header ce-{name} differs from the {name} that the body names: {value[:64]!r} and "
                f"{str(own)[:64]!r}; send both alike, or only one"
            )
            fault = {"pointer": pointer((name,)), "rule": "agrees", "message": words}
            raise refused("invalid", words, errors=(fault,))
    return _object(texts)


def _same(name: str, own: Any, said: str) -> bool:  # noqa: ANN401 - any JSON value
    if name == "time" and isinstance(own, str):
        try:
            return (moment_of(own), rest_of(own)) == (moment_of(said), rest_of(said))
        except ValueError:
            return own == said
    if isinstance(own, bool):
        return said == str(own).lower()
    return not isinstance(own, dict | list) and str(own) == said


def _attributes(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            shown = name.decode("latin-1")[:64]
            if not _NAME.fullmatch(attribute) or attribute in _RESERVED:
                raise refused("malformed", f"the header {shown}: no attribute of CloudEvents has this name")
            if attribute.decode() in found:
                raise refused("malformed", f"the header {shown} is there twice; send it once")
            found[attribute.decode()] = _value(shown, value)
    return found


def _document(body: bytes, limits: Limits) -> Document:
    try:
        return read(body.decode(), limits.json_depth_max, limits.json_values_max)
    except UnicodeDecodeError as error:
        raise refused("malformed", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonFault as fault:
        raise refused("malformed", f"the body is not JSON as we take it: {fault}") from None


def _object(texts: Mapping[str, str]) -> bytes:
    return ("{" + ", ".join(f"{_quoted(name)}: {text}" for name, text in texts.items()) + "}").encode()


def _value(shown: str, raw: bytes) -> str:
    # A receiver takes quotes off before it decodes, as the binding says for senders of its first version.
    if len(raw) > 1 and raw.startswith(b'"') and raw.endswith(b'"'):
        raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise refused("malformed", f"the header {shown}: expected UTF-8, percent-encoded") from None
