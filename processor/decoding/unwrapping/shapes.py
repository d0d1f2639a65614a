"""What bodies of other systems look like, to say in a rejection what would take them."""

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
    """Say what is to be done about a body that lies in S3, and only its place came; None: it is none such."""
    # Asked of every body: the first look costs a tenth of a microsecond.
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
"""Stands in words for the envelope around, if there is one: two are named with the outer first."""


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
    # The members that such a body has, and the words for it.
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
    """Say what a body in no known format looks like, and what takes it; None: nobody's that we know.

    With `is_payload` it would be stored whole and under no id of its own, so once for each of its deliveries.
    That is refused of what the service alone writes so, unless an operator says that it is no envelope.
    `around` names the service whose envelope the body was in; None: it was in none.
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
