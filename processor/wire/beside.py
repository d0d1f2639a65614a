"""What stands beside a body: what it names of the event, and what becomes of the rest.

    attributes ─┬▶ the six NAMES      fill what the body leaves open; where both speak they must agree
                ├▶ CloudEvents' names  the same, see cloudevents.py
                ├▶ content-encoding    how the body is packed, see unpacking.py
                └▶ everything else     goes into the context, beside the body's own words
    implied ────▶ tenant and event type that the way by which it came says: fill what is open then

Attributes are SQS's message attributes, AMQP's properties and headers, and Kafka's headers: one rule for all.
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
"""The value of one message attribute: text (SQS String and Number) or bytes (Binary)."""

NAMES = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "schema_version")
"""What may be named beside a body."""

AMQP_MESSAGE_ID, AMQP_TIMESTAMP, AMQP_USER_ID = "amqp.message_id", "amqp.timestamp", "amqp.user_id"
_LAST_WORDS = {"message_id": AMQP_MESSAGE_ID, "occurred_at": AMQP_TIMESTAMP}
"""What names something where nothing else does. Libraries set them unasked, so they contradict nobody."""

ROUTING_KEY = "routing_key"
SCHEMA_ID = "schema_registry_id"
"""What a schema registry's prefix of a body becomes."""

OF_A_DEAD_LETTER = ("x-first-death-queue", "x-first-death-reason", "x-first-death-exchange")
"""What of a broker's headers is kept beside a body: where it lay before it was dead-lettered, and why."""

OURS = (
    *(ROUTING_KEY, SCHEMA_ID, AMQP_MESSAGE_ID, AMQP_TIMESTAMP, AMQP_USER_ID, "amqp.timestamp.raw"),
    *OF_A_DEAD_LETTER,
)
"""Names under which we note what a broker or a body's form says, besides AMQP's properties as `amqp.NAME`.

What a sender calls so, beside a body or in it, gets another name, see `from_outside`.
"""
_OURS = re.compile("|".join([*map(re.escape, OURS), r"amqp\.[a-z_.]+"]))

OF_THE_BROKER = (
    "x-delivery-count",
    "x-acquired-count",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-received-from",
    "x-stream-offset",
)
"""How the headers begin that a broker adds on the way. They are not the sender's words, and no context."""

CLOUDEVENTS = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""How the attributes of a CloudEvent in binary mode begin, in small letters."""

_NAME_OF_CLOUDEVENTS = re.compile(r"[a-z0-9]{1,64}")

_OF_THE_TRANSPORT = re.compile(
    r"traceparent|tracestate|traceresponse|baggage|correlation-context|b3|x-b3-.*"  # W3C, Zipkin
    r"|sentry-trace|uber-trace-id|uberctx-.*|jaeger-.*|x-ot-span-context|ot-tracer-.*"
    r"|x-datadog-.*|_datadog|dd-pathway-ctx.*|newrelic|elastic-apm-traceparent|x-instana-.*|x-dynatrace"
    r"|x-amzn-trace-id|awstraceheader|x-cloud-trace-context|diagnostic-id|grpc-trace-bin"
    r"|(x-)?request-id|x-client-trace-id|x-delay"
)


class Beside(NamedTuple):
    """What stands beside one body, and what the way by which it came implies.

    `sources` names, for fields that were read from attributes, which those are.
    """

    attributes: Mapping[str, Attribute] = MappingProxyType({})
    implied: Mapping[str, str] = MappingProxyType({})
    sources: Mapping[str, str] = MappingProxyType({})

    @property
    def known(self) -> Mapping[str, Attribute]:
        """What is said or implied."""
        return {**self.implied, **self.attributes} if self.implied else self.attributes


NOTHING_BESIDE = Beside()


def no_identifier(text: str) -> bool:
    """Whether a text has what no identifier may have: control characters or lone surrogates."""
    # ASCII without a control character is nearly every id, and isprintable answers that without a loop.
    return not text.isprintable() and any(unicodedata.category(each) in ("Cc", "Cs") for each in text)


def binary_name(attributes: Mapping[str, Attribute]) -> str | None:
    """Give the first of the names that is binary; only text names anything."""
    for name, value in attributes.items():
        if isinstance(value, bytes) and name in NAMES:
            return name
    return None


def complete(
    fields: Mapping[str, Any], names: Mapping[str, str], beside: Beside
) -> tuple[dict[str, Any], dict[str, str]]:
    """Add to a body's fields what they leave open; `names` maps our names to the body's.

    The second value has the attribute that each field was taken from.
    """
    completed, sources = dict(fields), dict(beside.sources)
    for name, field in names.items():
        if fields.get(field) is not None:
            continue
        source = name if name in beside.attributes else _LAST_WORDS.get(name, name)
        value = beside.attributes.get(source)
        # A property that is empty names nothing.
        if value is not None and (source == name or value):
            if isinstance(value, bytes):
                # One that can be no id comes so, and is refused in words that name it.
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
    """Say, in words that name both, where a body and what is beside it differ; None: nowhere.

    `event_type` is what both come to.
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
    """Say that an attribute and a body differ."""
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
    """Add to the text of a context what else stands beside the body.

    In the context are those of a body's `fields` that are not `known`. Where one of them says another thing
    than an attribute of its name, both stay: see `free_name`. `sources` has the attributes that fill fields.
    """
    found: dict[str, Attribute] = {}
    filling = set(sources.values())
    for name, value in attributes.items():
        if name in _NOT_CONTEXT or name in filling:
            continue
        if name in fields and name not in known and not _OURS.fullmatch(name):
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
    """Give what a sender has put beside a body or in it, under names that can't be taken for ours.

    Nor are they `beside`, where what stands there is to be told from it.
    """
    if not any(map(_OURS.fullmatch, given)):
        return given
    found: dict[str, T] = {}
    for name, value in given.items():
        found[_free(name, (name,), given, found, beside) if _OURS.fullmatch(name) else name] = value
    return found


def free_name(name: str, taken: Container[str]) -> str:
    """Give a name for what a sender has put beside a body: its own, or one with a number behind it.

    A number is put where the name is taken, or is one of ours, which a sender never gets.
    """
    return _free(name, taken, (name,) if _OURS.fullmatch(name) else ())


def add_ours(attributes: Mapping[str, Attribute], name: str, value: str) -> dict[str, Attribute]:
    """Put what we say ourselves beside a body; whatever a sender called so has another name by then."""
    return {**attributes, _free(name, attributes): value}


def _free(name: str, *taken: Container[str]) -> str:
    names = itertools.chain((name,), (f"{name}#{number}" for number in itertools.count(2)))
    return next(each for each in names if not any(each in names for names in taken))


@lru_cache(maxsize=4096)
def bare_name(name: str) -> str | None:
    """Give the name of a CloudEvent's attribute in binary mode without its prefix; None: it is none."""
    lowered = name.lower()
    for prefix in CLOUDEVENTS:
        bare = lowered.removeprefix(prefix)
        if bare != lowered and (_NAME_OF_CLOUDEVENTS.fullmatch(bare) or bare == "data_base64"):
            return bare
    return None


def speaks(name: str) -> bool:
    """Say whether an attribute of this name has a meaning to us, so that it may be there only once."""
    return name in NAMES or of_an_event(name) or _plain(name) == _CONTENT_ENCODING


@lru_cache(maxsize=4096)
def of_an_event(name: str) -> bool:
    """Say whether an attribute of this name may make of a body a CloudEvent."""
    return bare_name(name) is not None or _plain(name) == _CONTENT_TYPE


@lru_cache(maxsize=4096)
def of_the_transport(name: str) -> bool:
    """Say whether an attribute is about the sending of a message: a trace, or the number of a request.

    These differ each time a message is published, and so tell no message from another. They are context.
    """
    return _OF_THE_TRANSPORT.fullmatch(bare_name(name) or name.lower()) is not None


_CONTENT_TYPE, _CONTENT_ENCODING = "contenttype", "contentencoding"

_OF_KOMBU = "application/x-"
"""How the values of kombu's header `compression` begin, which leaves content_encoding to the charset."""


def content_types(attributes: Mapping[str, Attribute]) -> list[str]:
    """Give the names of the attributes that say of which media type a body is, however they are written."""
    return [name for name in attributes if _plain(name) == _CONTENT_TYPE]


def content_encodings(attributes: Mapping[str, Attribute]) -> list[str]:
    """Give the names of the attributes that say how a body is packed, however they are written."""
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
    # As the rejection's column has it, so that text is told from bytes.
    if isinstance(value, str):
        return quoted(value)
    return f'{{"base64": "{base64.b64encode(value).decode()}"}}'


def number_in_text(value: object) -> object:
    """Give the number of a text of digits, as a version of a schema may be one; anything else as it is."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
