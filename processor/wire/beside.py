"""Merges the attributes of a message into its event, and the rest into its context.

    attributes ─┬▶ the six NAMES      fill missing fields; if both have a value, the two must agree
                ├▶ CloudEvents' names  the same, see cloudevents.py
                ├▶ content-encoding    the compression of the body, see unpacking.py
                └▶ everything else     added to the context, with the body's other members
    implied ────▶ tenant and event type of the origin: fill what is missing then

Attributes are SQS message attributes, AMQP properties and headers, and Kafka headers: one rule for all.
"""

import base64
import itertools
import re
import unicodedata
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
Attribute: TypeAlias = str | bytes
"""The value of one message attribute: str (SQS String and Number) or bytes (Binary)."""

NAMES = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "schema_version")
"""Fields that attributes may name."""

AMQP_MESSAGE_ID, AMQP_TIMESTAMP, AMQP_USER_ID = "amqp.message_id", "amqp.timestamp", "amqp.user_id"
_FALLBACKS = {"message_id": AMQP_MESSAGE_ID, "occurred_at": AMQP_TIMESTAMP}
"""The last sources of a field. Libraries set them unasked, so they may differ from other sources."""

ROUTING_KEY = "routing_key"
SCHEMA_ID = "schema_registry_id"
"""The value of a schema registry's prefix."""

OF_A_DEAD_LETTER = ("x-first-death-queue", "x-first-death-reason", "x-first-death-exchange")
"""Broker headers that are kept: the queue before dead-lettering, and the reason."""

OURS = (
    *(ROUTING_KEY, SCHEMA_ID, AMQP_MESSAGE_ID, AMQP_TIMESTAMP, AMQP_USER_ID, "amqp.timestamp.raw"),
    *OF_A_DEAD_LETTER,
)
"""Names for values of a broker or of a body's form, besides AMQP's properties as `amqp.NAME`.

Attributes and members of a sender with such a name are renamed, see `from_outside`.
"""
_RESERVED = re.compile("|".join([*map(re.escape, OURS), r"amqp\.[a-z_.]+"]))

OF_THE_BROKER = (
    "x-delivery-count",
    "x-acquired-count",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-received-from",
    "x-stream-offset",
)
"""Prefixes of the headers that a broker adds. They are not the sender's, and not context."""

CLOUDEVENTS = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""Prefixes of the attributes of a CloudEvent in binary mode, in lower case."""

_NAME_OF_CLOUDEVENTS = re.compile(r"[a-z0-9]{1,64}")

_OF_THE_TRANSPORT = re.compile(
    r"traceparent|tracestate|traceresponse|baggage|correlation-context|b3|x-b3-.*"  # W3C, Zipkin
    r"|sentry-trace|uber-trace-id|uberctx-.*|jaeger-.*|x-ot-span-context|ot-tracer-.*"
    r"|x-datadog-.*|_datadog|dd-pathway-ctx.*|newrelic|elastic-apm-traceparent|x-instana-.*|x-dynatrace"
    r"|x-amzn-trace-id|awstraceheader|x-cloud-trace-context|diagnostic-id|grpc-trace-bin"
    r"|(x-)?request-id|x-client-trace-id|x-delay"
)


class Beside(NamedTuple):
    """The attributes of a message, and the fields that its origin implies.

    `sources` names the attributes of fields that were read from attributes.
    """

    attributes: Mapping[str, Attribute] = MappingProxyType({})
    implied: Mapping[str, str] = MappingProxyType({})
    sources: Mapping[str, str] = MappingProxyType({})

    @property
    def known(self) -> Mapping[str, Attribute]:
        """The attributes and the implied fields."""
        return {**self.implied, **self.attributes} if self.implied else self.attributes


NOTHING_BESIDE = Beside()


def no_identifier(text: str) -> bool:
    """Return whether a text has characters that identifiers must not have: controls or lone surrogates."""
    # Most ids are printable ASCII, which isprintable checks without a loop.
    return not text.isprintable() and any(unicodedata.category(each) in ("Cc", "Cs") for each in text)


def binary_name(attributes: Mapping[str, Attribute]) -> str | None:
    """Return the first field attribute that is binary; only text is valid."""
    for name, value in attributes.items():
        if isinstance(value, bytes) and name in NAMES:
            return name
    return None


def complete(
    fields: Mapping[str, Any], names: Mapping[str, str], beside: Beside
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill the missing fields of a body; `names` maps our names to the body's.

    The second value has the source attribute of each filled field.
    """
    completed, sources = dict(fields), dict(beside.sources)
    for name, field in names.items():
        if fields.get(field) is not None:
            continue
        source = name if name in beside.attributes else _FALLBACKS.get(name, name)
        value = beside.attributes.get(source)
        # An empty property counts as missing.
        if value is not None and (source == name or value):
            if isinstance(value, bytes):
                # Invalid bytes survive here, and are rejected later with a message that names them.
                value = value.decode(errors="surrogateescape")
            completed[field] = number_in_text(value) if name == "schema_version" else value
            sources[field] = source
        elif name in beside.implied:
            completed[field] = beside.implied[name]
    return completed, sources


def disagreement(
    names: Mapping[str, str],
    fields: Mapping[str, Any],
    beside: Beside,
    same: Callable[[str, str], bool],
    event_type: str,
) -> str | None:
    """Return a message if body and attributes differ; None: they agree.

    `event_type` is the resulting event type.
    """
    for name, field in names.items():
        said, own = beside.attributes.get(name), fields.get(field)
        if isinstance(said, str) and own is not None and not same(name, said):
            return differing(name, said, "tenant" if name == "tenant_id" else name, own)
    implied = beside.implied.get("event_type", event_type)
    if implied == event_type:
        return None
    return (
        f"event_type: the message has {event_type[:_QUOTED_MAX]!r}, but its queue is configured for "
        f"{implied!r}; send it to a queue for its type, or change the configuration of the queue"
    )


def differing(attribute: str, said: Attribute, what: str, own: object) -> str:
    """Return the message for an attribute that differs from the body."""
    return (
        f"the message attribute {attribute} differs from the {what} in the body: "
        f"{said[:_QUOTED_MAX]!r} and {str(own)[:_QUOTED_MAX]!r}; send the same value in both, or only one"
    )


_QUOTED_MAX = 64


def add_context(
    text: str | None,
    fields: Mapping[str, Any],
    known: Container[str],
    attributes: Mapping[str, Attribute],
    sources: Mapping[str, str],
) -> str | None:
    """Add the remaining attributes to the text of a context.

    The context has the body's `fields` that are not `known`. If a field and an attribute of one name differ,
    both stay: see `free_name`. `sources` has the attributes that fill fields.
    """
    found: dict[str, Attribute] = {}
    filling = set(sources.values())
    for name, value in attributes.items():
        if name in _NOT_CONTEXT or name in filling:
            continue
        if name in fields and name not in known and not _RESERVED.fullmatch(name):
            if fields[name] == value:
                continue
            found[_free(name, fields, found, attributes)] = value
        else:
            found[name] = value
    if not found:
        return text
    added = ", ".join([f"{quoted(name)}: {_json(value)}" for name, value in found.items()])
    return f"{{{added}}}" if text is None else f"{{{added}, {text[1:-1]}}}"


_NOT_CONTEXT = frozenset((*NAMES, *OF_A_DEAD_LETTER))


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────


def from_outside(given: Mapping[str, T], beside: Container[str] = ()) -> Mapping[str, T]:
    """Rename a sender's attributes or members that have reserved names.

    The new names are not in `beside` either.
    """
    if not any(map(_RESERVED.fullmatch, given)):
        return given
    found: dict[str, T] = {}
    for name, value in given.items():
        found[_free(name, (name,), given, found, beside) if _RESERVED.fullmatch(name) else name] = value
    return found


def free_name(name: str, taken: Container[str]) -> str:
    """Return a free name for a sender's attribute: its own, or with a number appended.

    A number is appended if the name is taken or reserved.
    """
    return _free(name, taken, (name,) if _RESERVED.fullmatch(name) else ())


def add_ours(attributes: Mapping[str, Attribute], name: str, value: str) -> dict[str, Attribute]:
    """Add an attribute of our own; a sender's attribute of this name was renamed before."""
    return {**attributes, _free(name, attributes): value}


def _free(name: str, *taken: Container[str]) -> str:
    names = itertools.chain((name,), (f"{name}#{number}" for number in itertools.count(2)))
    return next(each for each in names if not any(each in names for names in taken))


@lru_cache(maxsize=4096)
def bare_name(name: str) -> str | None:
    """Return a CloudEvent attribute's name without its prefix; None: not such an attribute."""
    lowered = name.lower()
    for prefix in CLOUDEVENTS:
        bare = lowered.removeprefix(prefix)
        if bare != lowered and (_NAME_OF_CLOUDEVENTS.fullmatch(bare) or bare == "data_base64"):
            return bare
    return None


def speaks(name: str) -> bool:
    """Return whether an attribute has a meaning here, so that duplicates are rejected."""
    return name in NAMES or of_an_event(name) or _plain(name) == _CONTENT_ENCODING


@lru_cache(maxsize=4096)
def of_an_event(name: str) -> bool:
    """Return whether an attribute may make a message a CloudEvent."""
    return bare_name(name) is not None or _plain(name) == _CONTENT_TYPE


@lru_cache(maxsize=4096)
def of_the_transport(name: str) -> bool:
    """Return whether an attribute belongs to the transport: a trace, or a request id.

    Such attributes differ each time a message is published, and so identify no message. They are context.
    """
    return _OF_THE_TRANSPORT.fullmatch(bare_name(name) or name.lower()) is not None


_CONTENT_TYPE, _CONTENT_ENCODING = "contenttype", "contentencoding"

_OF_KOMBU = "application/x-"
"""Prefix of the values of kombu's header `compression`; its content_encoding is the charset."""


def content_types(attributes: Mapping[str, Attribute]) -> list[str]:
    """Return the attributes with the media type of the body, in any spelling."""
    return [name for name in attributes if _plain(name) == _CONTENT_TYPE]


def content_encodings(attributes: Mapping[str, Attribute]) -> list[str]:
    """Return the attributes with the compression of the body, in any spelling."""
    return [
        name
        for name, value in attributes.items()
        if _plain(name) == _CONTENT_ENCODING
        or (name == "compression" and isinstance(value, str) and value.startswith(_OF_KOMBU))
    ]


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return name.lower().removeprefix("amqp.").replace("-", "").replace("_", "")


def _json(value: Attribute) -> str:
    # As in the rejection's column, to distinguish text from bytes.
    if isinstance(value, str):
        return quoted(value)
    return f'{{"base64": "{base64.b64encode(value).decode()}"}}'


def number_in_text(value: object) -> object:
    """Parse a string of digits, for schema versions; other values stay as they are."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
