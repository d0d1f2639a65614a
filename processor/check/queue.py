"""The queue's part of `processor check`: SQS, and the dead-letter queue behind it."""

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
"""A weekend and a day: what SQS gives by itself, and the least that lets people sleep."""

RETENTION_S_MAX = 14 * 24 * 3600
"""As long as SQS keeps anything."""

HOLD_S_LIMIT = 12 * 3600
"""SQS ends every hold of a message so long after the receive (SQS quotas)."""

_DAY_S = 24 * 3600
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
_TOO_MANY, _SERVER_ERROR = 429, 500

Attributes = Mapping[str, str]


class _CannotTell(Exception):
    """A call gave no answer; carries the finding that says why."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.found)
        self.finding = found


def check_queue(client: "SQSClient", settings: RunSettings, now: Now = utc_now) -> list[Finding]:
    """Look at the queue of SQS_QUEUE_URL and at its dead-letter queue, by their attributes alone.

    No message is received, since each receive counts towards the dead-letter queue. That is why the age of
    the backlog is not known here: SQS tells it to CloudWatch only.
    """
    findings: list[Finding] = []
    try:
        for found in _look(client, settings, now):
            findings.append(found)  # noqa: PERF402 - what was found before an outage is kept
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
        # The header has whole seconds: the moment lies somewhere in the one that follows.
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
    """Call SQS; raises _CannotTell with the finding that says why there is no answer."""
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
            advice=f"is its name right, and was it made in this region, endpoint and account? {advice(code)}",
        )
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        return Finding(
            what, fine=False, found=f"SQS can't answer now: {code}", advice="try again", unreachable=True
        )
    return judge(
        what,
        f"SQS refuses us: {code}",
        fine=False,
        advice=advice(code, otherwise="look at the credentials and the policies")
        + "; sqs:GetQueueAttributes and sqs:GetQueueUrl are needed on the queue and on its dead-letter queue",
    )


def _unreachable(what: str, client: "SQSClient", error: str) -> Finding:
    # Without user and password, should somebody have put them there.
    where = urlsplit(client.meta.endpoint_url)
    return Finding(
        what,
        fine=False,
        found=f"SQS can't be reached at {where.scheme}://{where.netloc.rpartition('@')[2]}: {error}",
        advice="is AWS_ENDPOINT_URL right (unset for AWS), and does the network let us out? "
        "The processor waits until then",
        unreachable=True,
    )


# ── the queue itself ──────────────────────────────────────────────────────────────────────────────────


def _queue(attributes: Attributes, settings: RunSettings) -> Finding:
    fifo = attributes.get("FifoQueue") == "true"
    return tell(
        "queue",
        f"{settings.queue_name()}, {'FIFO' if fifo else 'standard'}",
        note=fifo,
        advice="a held message keeps the later ones of its group waiting. Order is not needed here: a "
        "standard queue with MessageGroupId is faster, and as fair to tenants",
    )


def _deduplication() -> Finding:
    return tell(
        "deduplication",
        "by content",
        note=True,
        advice="of two events with the same body within five minutes SQS keeps one, and says yes to both: "
        "events without an id of their own are lost so. Let producers give each event an id, or a "
        "MessageDeduplicationId, and set ContentBasedDeduplication to false",
    )


def _backlog(attributes: Attributes) -> Finding:
    visible, in_flight, delayed = (
        int(attributes.get(f"ApproximateNumberOfMessages{state}", 0))
        for state in ("", "NotVisible", "Delayed")
    )
    return tell(
        "backlog",
        f"{visible} visible, {in_flight} in flight, {delayed} delayed; SQS itself does not tell their age",
        note=visible > 0,
        advice="set an alarm on CloudWatch's ApproximateAgeOfOldestMessage, well below the retention",
    )


def _retention(attributes: Attributes) -> Finding:
    retention_s = int(attributes["MessageRetentionPeriod"])
    return judge(
        "retention",
        _duration(retention_s),
        fine=retention_s >= RETENTION_S_MIN,
        advice=f"raise MessageRetentionPeriod to {RETENTION_S_MIN} s or more: SQS deletes what an outage "
        "keeps in the queue for longer, and nobody has its rows",
    )


def _message_size(attributes: Attributes, settings: RunSettings) -> Finding:
    size_bytes = int(attributes["MaximumMessageSize"])
    return judge(
        "message size",
        f"the queue takes {size_bytes} bytes, we take {settings.body_bytes_max}",
        fine=settings.body_bytes_max >= size_bytes,
        advice=f"raise BODY_BYTES_MAX to {size_bytes}, or lower the queue's MaximumMessageSize: what lies "
        "between is accepted from the producer, then rejected as too_large",
    )


def judge_visibility(settings: RunSettings, *, own_s: int, read_timeout_s: float) -> Finding:
    """Judge VISIBILITY_TIMEOUT_S; `own_s` is the queue's own, `read_timeout_s` how long a call may wait.

    What is held is extended at every third of the time-out. When one such call is lost, two thirds are left
    until others get the message too. They must cover what may be under way then: the longest save
    (DATABASE_TIMEOUT_S), and the lost call's own wait for an answer. And SQS refuses to extend beyond 12
    hours after the receive, so holding must end a time-out earlier.
    """
    timeout_s = settings.visibility_timeout_s
    needed_s = math.ceil(1.5 * max(settings.database_timeout_s, read_timeout_s))
    if timeout_s < needed_s:
        advice = (
            f"raise VISIBILITY_TIMEOUT_S to {needed_s} or more, 1.5 times the longer of DATABASE_TIMEOUT_S "
            f"and the {read_timeout_s:.0f} s that a call may take: else one lost extension brings doubles"
        )
    else:
        advice = (
            f"lower HOLD_S_MAX to {HOLD_S_LIMIT - timeout_s} or less: SQS ends every hold {HOLD_S_LIMIT} s "
            "after the receive, and refuses to extend beyond it"
        )
    return judge(
        "visibility timeout",
        f"{timeout_s} s, asked for at each receive (the queue's own, {own_s} s, is not used)",
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
            advice="make one, and name it in the queue's RedrivePolicy with maxReceiveCount "
            f"{RECEIVE_COUNT_MIN} or more: a message that kills its receiver comes again for ever without it",
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
        advice="they have no row: find out why they died, then processor dlq import and processor "
        "rejection replay. Not AWS's own redrive: it gives new ids, and an event without one may count twice",
    )
    yield _dead_letter_retention(attributes, other)
    yield _key_retention(attributes, other, settings)


def _receive_count(receives: int) -> Finding:
    return judge(
        "max receive count",
        str(receives),
        fine=receives >= RECEIVE_COUNT_MIN,
        advice=f"raise maxReceiveCount in the RedrivePolicy to {RECEIVE_COUNT_MIN} or more: deployments and "
        "outages count as receives too, and push good messages into the dead-letter queue",
    )


def _dead_letter_retention(attributes: Attributes, other: Attributes) -> Finding:
    ours_s, theirs_s = int(attributes["MessageRetentionPeriod"]), int(other["MessageRetentionPeriod"])
    return judge(
        "dead-letter retention",
        _duration(theirs_s),
        fine=theirs_s > ours_s or theirs_s >= RETENTION_S_MAX,
        advice=f"raise the dead-letter queue's MessageRetentionPeriod to {RETENTION_S_MAX} s (14 days): a "
        "message keeps the age that it had in the first queue, so it needs longer than there",
    )


def _key_retention(attributes: Attributes, other: Attributes, settings: RunSettings) -> Finding:
    # Dead letters that are moved back begin a new life in the queue.
    needed_s = int(attributes["MessageRetentionPeriod"]) + int(other.get("MessageRetentionPeriod", 0))
    return judge(
        "key retention",
        f"{settings.key_retention_days} days",
        fine=settings.key_retention_days * _DAY_S >= needed_s,
        advice=f"raise KEY_RETENTION_DAYS to {math.ceil(needed_s / _DAY_S)} or more: the queue and its "
        "dead-letter queue (if any) can bring a message as late as that; without its key it is counted twice",
    )


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days and not rest else f"{seconds} s"
