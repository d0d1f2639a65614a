"""Recognizes bodies of other systems, to name the needed configuration in a rejection."""

import re
from typing import Any

from processor.decoding.unwrapping.s3 import TEST_EVENT_WORDS
from processor.wire.formats import says_its_type

_POINTER = re.compile(
    rb'\s*+\[\s*+"(?:software\.amazon\.payloadoffloading\.PayloadS3Pointer|'
    rb'com\.amazon\.sqs\.javamessaging\.MessageS3Pointer)"'
)
_POINTER_ENDS_WITHIN = 100


def pointer_words(body: bytes) -> str | None:
    """Return advice for a body that is only a pointer to S3; None: not such a body."""
    # Runs for every body: the first check costs a tenth of a microsecond.
    if b"S3Pointer" not in body[:_POINTER_ENDS_WITHIN] or not _POINTER.match(body):
        return None
    return (
        "the body is a pointer of the SQS extended client: the event itself is in S3 and is not fetched; "
        "send the event itself (SQS accepts 1 MiB), or its address in an event of a known format"
    )


def _wrapped(what: str, unwrap: str) -> str:
    return (
        f"this is {what}: if the queue carries only such messages, set UNWRAP=@{unwrap} (or: processor queue "
        f"set QUEUE --unwrap @{unwrap}), then processor rejection replay --reason envelope_invalid"
    )


_AROUND = "@"
"""Placeholder for the outer wrapper, if any: two wrappers are named with the outer first."""


def _mapped(what: str, mapping: str) -> str:
    return (
        f"this looks like {what}: map its fields (processor queue set QUEUE {mapping}), then "
        "processor rejection replay --reason envelope_invalid"
    )


NO_TENANT = (
    "the tenant is unknown: bind the queue to one tenant (QUEUE_TENANTS=TENANT_ID, or: processor "
    "queue set QUEUE --tenant TENANT_ID), then processor rejection replay --reason envelope_invalid"
)

_UNMISTAKABLE = (
    # The members of such a body, and the message.
    ({"Type", "TopicArn", "MessageId"}, _wrapped("an SNS notification", "sns")),
    ({"detail-type", "source", "detail", "id"}, _wrapped("an EventBridge event", "eventbridge")),
    ({"Service", "Event", "Bucket", "RequestId"}, TEST_EVENT_WORDS),
    *(
        (
            {name},
            "this looks like OTLP, which batches many records in one message: send one record a message",
        )
        for name in ("resourceSpans", "resourceMetrics", "resourceLogs")
    ),
)

_SHAPES = (
    ({"Type", "TopicArn"}, _wrapped("an SNS notification", "sns")),
    ({"detail-type", "source", "detail"}, _wrapped("an EventBridge event", "eventbridge")),
    ({"schema", "payload"}, _mapped("a Kafka Connect record", "--map payload=/payload ...")),
    ({"op", "source", "ts_ms"}, _mapped("a Debezium change event", "--map payload=/after ...")),
    ({"mail", "notificationType"}, _mapped("an SES notification", "--map id=/mail/messageId ...")),
    (
        {"body", "content-encoding", "properties"},
        "this looks like a Celery task, not an event: use another queue for tasks",
    ),
)


def shape_words(
    value: Any,  # noqa: ANN401 - any JSON value
    is_payload: bool = False,
    *,
    around: str | None = None,
) -> str | None:
    """Return the format of a body and its needed configuration; None: unknown.

    `is_payload`: the body would be stored whole and without an id, so once for each delivery. Unmistakable
    formats of services are then refused, unless the rules say that there is no wrapper. `around` names the
    removed wrapper; None: none.
    """
    words = _unmistakable(value)
    if is_payload:
        words = words and f"{words}; or, to store it as it is, --unwrap none"
    elif words is None and isinstance(value, dict) and not says_its_type(value):
        words = next((words for names, words in _SHAPES if names <= value.keys()), None)
    return words and words.replace(_AROUND, "sns," if around == "sns" else "")


def _unmistakable(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    match value:
        case {"Records": [{"eventSource": str(source), "s3": _}, *_]} if source.endswith(":s3"):
            return _wrapped("an S3 notification", "s3")
        case [{"specversion": _}, *_]:
            return "this is a batch of CloudEvents: send each event as a message of its own"
        case {}:
            return next((words for names, words in _UNMISTAKABLE if names <= value.keys()), None)
    return None
