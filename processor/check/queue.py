"""The SQS checks of `processor check`: the queue and its dead-letter queue."""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from processor.brokers.aws_advice import advice
from processor.check import Finding, judge, tell
from processor.check.clock import Now, compare_clock, utc_now
from processor.settings import RunSettings
from processor.wire.bounds import NOT_READABLE, http_date

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

RECEIVE_COUNT_MIN = 10
RETENTION_S_MIN = 4 * 24 * 3600
"""The default of SQS: enough for an outage over a long weekend."""

RETENTION_S_MAX = 14 * 24 * 3600
"""The longest retention of SQS."""

HOLD_S_LIMIT = 12 * 3600
"""SQS limits the visibility time-out to this time after the receive (SQS quotas)."""

_DAY_S = 24 * 3600
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
_TOO_MANY, _SERVER_ERROR = 429, 500

Attributes = Mapping[str, str]


class _CannotTell(Exception):
    """A call failed; carries the finding with the cause."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.found)
        self.finding = found


def check_queue(client: "SQSClient", settings: RunSettings, now: Now = utc_now) -> list[Finding]:
    """Check the queue of SQS_QUEUE_URL and its dead-letter queue by their attributes.

    No message is received: each receive counts towards the dead-letter queue. So the age of the backlog is
    unknown here; SQS reports it to CloudWatch only.
    """
    findings: list[Finding] = []
    try:
        for found in _look(client, settings, now):
            findings.append(found)  # noqa: PERF402 - findings from before an outage are kept
    except _CannotTell as trouble:
        findings.append(trouble.finding)
    return findings


def _look(client: "SQSClient", settings: RunSettings, now: Now) -> Iterator[Finding]:
    before = now()
    answer = _ask(
        client, "queue", "get_queue_attributes", QueueUrl=settings.need_queue_url(), AttributeNames=["All"]
    )
    after = now()
    attributes: Attributes = answer["Attributes"]
    yield _queue(attributes, settings)
    if attributes.get("ContentBasedDeduplication") == "true":
        yield _deduplication()
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    at = http_date(date or "")
    if at is not None:
        # The header has whole seconds: the true time is up to one second later.
        yield compare_clock("queue clock", (before, after), (at, at + timedelta(seconds=1)))
    yield _backlog(attributes)
    yield _retention(attributes)
    yield _message_size(attributes, settings)
    yield judge_visibility(
        settings,
        own_s=int(attributes["VisibilityTimeout"]),
        read_timeout_s=client.meta.config.read_timeout,
    )
    yield from _dead_letters(client, attributes, settings)


def _ask(client: "SQSClient", what: str, operation: str, **arguments: Any) -> Any:  # noqa: ANN401 - boto3's dictionaries
    """Call SQS; raises _CannotTell with the finding for a failure."""
    from botocore.exceptions import (  # noqa: PLC0415 - a driver is imported when it is needed
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        return getattr(client, operation)(**arguments)
    except ClientError as error:
        raise _CannotTell(_refusal(what, error.response)) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _CannotTell(
            judge(
                what,
                "there are no AWS credentials",
                fine=False,
                advice=advice(type(error).__name__),
            )
        ) from error
    except (BotoCoreError, ResponseParserError, *NOT_READABLE) as error:
        raise _CannotTell(_unreachable(what, client, type(error).__name__)) from error


def _refusal(what: str, response: Any) -> Finding:  # noqa: ANN401 - a ClientError's dictionary
    code = str(response.get("Error", {}).get("Code", "unknown"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return judge(
            what,
            f"does not exist ({code})",
            fine=False,
            advice=f"check the queue's name, region, endpoint and account. {advice(code)}",
        )
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        return Finding(
            what, fine=False, found=f"SQS is unavailable: {code}", advice="try again", unreachable=True
        )
    return judge(
        what,
        f"SQS refused the request: {code}",
        fine=False,
        advice=advice(code, otherwise="check the credentials and the policies")
        + "; sqs:GetQueueAttributes and sqs:GetQueueUrl are needed on the queue and on its dead-letter queue",
    )


def _unreachable(what: str, client: "SQSClient", error: str) -> Finding:
    # Without user and password, if the endpoint URL has them.
    where = urlsplit(client.meta.endpoint_url)
    return Finding(
        what,
        fine=False,
        found=f"SQS can't be reached at {where.scheme}://{where.netloc.rpartition('@')[2]}: {error}",
        advice="check AWS_ENDPOINT_URL (unset for AWS) and the network. The processor retries until then",
        unreachable=True,
    )


# ── the queue itself ──────────────────────────────────────────────────────────────────────────────────


def _queue(attributes: Attributes, settings: RunSettings) -> Finding:
    fifo = attributes.get("FifoQueue") == "true"
    return tell(
        "queue",
        f"{settings.queue_name()}, {'FIFO' if fifo else 'standard'}",
        note=fifo,
        advice="a message in flight blocks the later ones of its group. The processor needs no order: a "
        "standard queue with MessageGroupId is faster, and as fair to tenants",
    )


def _deduplication() -> Finding:
    return tell(
        "deduplication",
        "by content",
        note=True,
        advice="SQS drops the second of two events with the same body within five minutes, so events without "
        "an id can be lost. Let producers give each event an id or a MessageDeduplicationId, and set "
        "ContentBasedDeduplication to false",
    )


def _backlog(attributes: Attributes) -> Finding:
    visible, in_flight, delayed = (
        int(attributes.get(f"ApproximateNumberOfMessages{state}", 0))
        for state in ("", "NotVisible", "Delayed")
    )
    return tell(
        "backlog",
        f"{visible} visible, {in_flight} in flight, {delayed} delayed; SQS does not report their age",
        note=visible > 0,
        advice="set an alarm on CloudWatch's ApproximateAgeOfOldestMessage, well below the retention",
    )


def _retention(attributes: Attributes) -> Finding:
    retention_s = int(attributes["MessageRetentionPeriod"])
    return judge(
        "retention",
        _duration(retention_s),
        fine=retention_s >= RETENTION_S_MIN,
        advice=f"raise MessageRetentionPeriod to {RETENTION_S_MIN} s or more: SQS deletes messages that an "
        "outage keeps in the queue for longer, and they are lost",
    )


def _message_size(attributes: Attributes, settings: RunSettings) -> Finding:
    size_bytes = int(attributes["MaximumMessageSize"])
    return judge(
        "message size",
        f"the queue accepts {size_bytes} bytes, the processor {settings.body_bytes_max}",
        fine=settings.body_bytes_max >= size_bytes,
        advice=f"raise BODY_BYTES_MAX to {size_bytes}, or lower the queue's MaximumMessageSize: messages "
        "with a size between the two limits are accepted by the queue, then rejected as too_large",
    )


def judge_visibility(settings: RunSettings, *, own_s: int, read_timeout_s: float) -> Finding:
    """Judge VISIBILITY_TIMEOUT_S; `own_s` is the queue's default, `read_timeout_s` the time limit of a call.

    Messages in flight are extended at every third of the time-out. If one such call fails, two thirds are
    left until the message is redelivered. They must cover the longest save (DATABASE_TIMEOUT_S) and the
    failed call's own time limit. SQS refuses to extend beyond 12 hours after the receive, so holding must end
    one time-out earlier.
    """
    timeout_s = settings.visibility_timeout_s
    needed_s = math.ceil(1.5 * max(settings.database_timeout_s, read_timeout_s))
    if timeout_s < needed_s:
        advice = (
            f"raise VISIBILITY_TIMEOUT_S to {needed_s} or more, 1.5 times the longer of DATABASE_TIMEOUT_S "
            f"and the {read_timeout_s:.0f} s limit of a call: else one failed extension causes a redelivery"
        )
    else:
        advice = (
            f"lower HOLD_S_MAX to {HOLD_S_LIMIT - timeout_s} or less: SQS refuses to extend the visibility "
            f"time-out beyond {HOLD_S_LIMIT} s after the receive"
        )
    return judge(
        "visibility timeout",
        f"{timeout_s} s, set at each receive (the queue's default, {own_s} s, is not used)",
        fine=timeout_s >= needed_s and settings.hold_s_max + timeout_s <= HOLD_S_LIMIT,
        advice=advice,
    )


# ── the dead-letter queue ─────────────────────────────────────────────────────────────────────────────


def _dead_letters(client: "SQSClient", attributes: Attributes, settings: RunSettings) -> Iterator[Finding]:
    what = "dead-letter queue"
    if not attributes.get("RedrivePolicy"):
        yield judge(
            what,
            "none",
            fine=False,
            advice="create one, and name it in the queue's RedrivePolicy with maxReceiveCount "
            f"{RECEIVE_COUNT_MIN} or more: without it, a message that crashes its consumer is redelivered "
            "endlessly",
        )
        yield _key_retention(attributes, {}, settings)
        return
    policy = json.loads(attributes["RedrivePolicy"])
    yield _receive_count(int(policy["maxReceiveCount"]))
    *_, account, name = policy["deadLetterTargetArn"].split(":")
    url = _ask(client, what, "get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
    other = _ask(client, what, "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
    depth = int(other.get("ApproximateNumberOfMessages", 0))
    yield tell(
        what,
        f"{name}, {depth} message(s) in it",
        note=depth > 0,
        advice="these messages have no row: find the cause, then run processor dlq import and processor "
        "rejection replay. Don't use the AWS redrive: it assigns new message ids, and an event without an id "
        "of its own may count twice",
    )
    yield _dead_letter_retention(attributes, other)
    yield _key_retention(attributes, other, settings)


def _receive_count(receives: int) -> Finding:
    return judge(
        "max receive count",
        str(receives),
        fine=receives >= RECEIVE_COUNT_MIN,
        advice=f"raise maxReceiveCount in the RedrivePolicy to {RECEIVE_COUNT_MIN} or more: deployments and "
        "outages raise the receive count too, and would move valid messages to the dead-letter queue",
    )


def _dead_letter_retention(attributes: Attributes, other: Attributes) -> Finding:
    ours_s, theirs_s = int(attributes["MessageRetentionPeriod"]), int(other["MessageRetentionPeriod"])
    return judge(
        "dead-letter retention",
        _duration(theirs_s),
        fine=theirs_s > ours_s or theirs_s >= RETENTION_S_MAX,
        advice=f"raise the dead-letter queue's MessageRetentionPeriod to {RETENTION_S_MAX} s (14 days): a "
        "message keeps its age from the first queue, so it needs a longer retention here",
    )


def _key_retention(attributes: Attributes, other: Attributes, settings: RunSettings) -> Finding:
    # The retention of dead letters that are moved back starts anew.
    needed_s = int(attributes["MessageRetentionPeriod"]) + int(other.get("MessageRetentionPeriod", 0))
    return judge(
        "key retention",
        f"{settings.key_retention_days} days",
        fine=settings.key_retention_days * _DAY_S >= needed_s,
        advice=f"raise KEY_RETENTION_DAYS to {math.ceil(needed_s / _DAY_S)} or more: a message can be "
        "redelivered that late from the queue or its dead-letter queue, and counts twice without its key",
    )


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days and not rest else f"{seconds} s"
