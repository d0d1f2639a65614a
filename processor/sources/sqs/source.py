"""Receive from SQS by long polls, delete in tens after the commit, and extend visibility timeouts."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from processor.brokers.aws_advice import with_advice
from processor.brokers.fast_sqs import HotCalls
from processor.brokers.source_refusal import SourceRefusal
from processor.errors import SourceUnavailable
from processor.model import Delivery, Settlement
from processor.runtime import metrics
from processor.settings import ReceiveSettings
from processor.sources.sqs.messages import MOVED_FROM, name_in, read_messages
from processor.wire.bounds import NOT_READABLE

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import MessageSystemAttributeNameType

log = structlog.get_logger(__name__)
T = TypeVar("T")

_OK = 200

_SILENCE_S_MAX = 15
"""The read timeout of a call beyond the wait of a long poll."""

_CREDENTIALS_REFUSED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Error codes for invalid credentials; not AccessDenied, since a policy can be corrected during a retry."""

_QUEUE_MISSING = frozenset({"NonExistentQueue", "QueueDoesNotExist"})

_ATTRIBUTES: "list[MessageSystemAttributeNameType]" = [
    "ApproximateReceiveCount",
    "SentTimestamp",
    "SenderId",
]

_SETTLE_PAUSES_S = (0.1, 0.5, 2.0, 0.0)
"""The pauses after each attempt to delete, before the failed entries are retried."""


class SqsSource:
    """One SQS queue, standard or FIFO. Only on a FIFO queue does a message group mean order.

    `queue` is its name in the tables. None: a dead-letter queue, whose deliveries have the name of the queue
    that SQS moved them from, or an empty name if SQS does not tell it. `hot_calls` makes the three calls that
    every message needs; by default the client makes all calls. `keys_given` means that the credentials come
    from settings and are not renewed: once refused for REFUSED_S_MAX they raise SourceFault, so that a
    restart can bring new ones. A queue missing for that long raises SettingsError. All other errors are
    outages (SourceUnavailable), including refused credentials of a role, which boto3 renews. `stop` ends the
    retries of a delete.
    """

    call_size = 10
    """Messages in one call of SQS, for receiving, deleting and extending (SQS quotas)."""

    def __init__(
        self,
        client: "SQSClient",
        queue_url: str,
        queue: str | None,
        *,
        visibility_timeout_s: int,
        hot_calls: HotCalls | None = None,
        keys_given: bool = False,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._hot_calls: HotCalls = hot_calls or client
        self._queue_url = queue_url
        self._queue = queue
        self._fifo = queue_url.endswith(".fifo")
        self._attributes = [*_ATTRIBUTES]
        if self._fifo:
            self._attributes.append("MessageGroupId")
        if queue is None:
            self._attributes.append(MOVED_FROM)
        self._visibility_timeout_s = visibility_timeout_s
        self._keys_given = keys_given
        self._stop = stop or threading.Event()
        self._refusal = SourceRefusal(clock)

    @classmethod
    def open(cls, settings: ReceiveSettings, stop: threading.Event | None = None) -> "SqsSource":
        """Make a client from the settings and boto3's credential chain. No call is made yet."""
        session, client = _session_and_client(settings)
        return cls(
            client,
            settings.need_queue_url(),
            settings.queue_name(),
            visibility_timeout_s=settings.visibility_timeout_s,
            hot_calls=_lean_calls(session, client) if settings.sqs_client == "lean" else None,
            keys_given=settings.aws_access_key_id is not None,
            stop=stop,
        )

    def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Long-poll once, for at most ten messages; `wait_s` is cut to whole seconds."""
        with self._outages("receive"):
            answer = self._hot_calls.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(limit, self.call_size),
                WaitTimeSeconds=min(int(wait_s), 20),
                VisibilityTimeout=self._visibility_timeout_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=self._attributes,
            )
            deliveries, altered = read_messages(answer.get("Messages", []), self._queue, fifo=self._fifo)
        if altered:
            metrics.source_errors.labels(operation="receive").inc(altered)
            log.warning("altered_on_the_way", count=altered, consequence="SQS will hand them over again")
            if not deliveries:
                raise SourceUnavailable("what SQS hands over was altered on its way: the MD5 is another")
        return deliveries

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Delete from the queue. No other code of the processor deletes messages.

        A delete that fails after all retries is only a warning: the row is committed, and the redelivery will
        find its outcome.
        """
        for chunk in _tens(settlements):
            left = {str(place): settlement.delivery for place, settlement in enumerate(chunk)}
            for pause_s in _SETTLE_PAUSES_S:
                with self._outages("delete"):
                    answer = self._hot_calls.delete_message_batch(
                        QueueUrl=self._queue_url, Entries=_entries(left)
                    )
                left = _still_failed("delete", left, answer.get("Failed", []))
                if not left or self._stop.wait(pause_s):
                    break
            metrics.settled.inc(len(chunk) - len(left))
            if left:
                log.warning(
                    "settle_failed", count=len(left), consequence="they will come again, and be known"
                )

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Restart the visibility timeout of deliveries."""
        self._change_visibility("extend", deliveries, self._visibility_timeout_s)

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Let the visibility timeout of deliveries end in `hold_s` seconds."""
        self._change_visibility("extend", deliveries, hold_s)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """End the visibility timeout of deliveries now."""
        self._change_visibility("release", deliveries, 0)

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def depth(self) -> dict[str, int]:
        """Return the queue's own counts: visible, in_flight and delayed (approximate on AWS)."""
        with self._outages("count"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._queue_url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            )
            # A missing count is an error, not a zero.
            counts = answer["Attributes"]
            return {
                "visible": int(counts["ApproximateNumberOfMessages"]),
                "in_flight": int(counts["ApproximateNumberOfMessagesNotVisible"]),
                "delayed": int(counts["ApproximateNumberOfMessagesDelayed"]),
            }

    def depth_with_dead_letters(self) -> dict[str, int]:
        """Return the counts of `depth` and dead_lettered, the size of this queue's dead-letter queue."""
        counts = self.depth()
        other = self.dead_letters(visibility_timeout_s=0)
        if other is not None:
            counts["dead_lettered"] = sum(other.depth().values())
        return counts

    def dead_letters(self, *, visibility_timeout_s: int) -> "SqsSource | None":
        """Return a source for this queue's dead-letter queue, or None if there is none."""
        url = self.dead_letter_queue_url()
        if url is None:
            return None
        return SqsSource(self._client, url, None, visibility_timeout_s=visibility_timeout_s)

    @property
    def name(self) -> str:
        """The queue's name, the last part of its URL."""
        return self._queue_url.rstrip("/").rsplit("/", 1)[-1]

    def moved_from(self) -> list[str]:
        """Return the names of the queues whose dead-letter queue this is."""
        names: list[str] = []
        token: Any = {}
        while True:
            with self._outages("list"):
                answer = self._client.list_dead_letter_source_queues(QueueUrl=self._queue_url, **token)
            names += [url.rstrip("/").rsplit("/", 1)[-1] for url in answer.get("queueUrls", [])]
            if not answer.get("NextToken"):
                return names
            token = {"NextToken": answer["NextToken"], "MaxResults": 1000}

    def dead_letter_queue_url(self) -> str | None:
        """Return the URL of the dead-letter queue in the redrive policy, or None if there is none."""
        with self._outages("count"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._queue_url, AttributeNames=["RedrivePolicy"]
            )
            policy = answer.get("Attributes", {}).get("RedrivePolicy")
            if not policy:
                return None
            name = name_in(json.loads(policy)["deadLetterTargetArn"])
            return self._client.get_queue_url(QueueName=name)["QueueUrl"]

    def _change_visibility(self, operation: str, deliveries: Sequence[Delivery], timeout_s: int) -> None:
        for chunk in _tens(deliveries):
            left = {str(place): delivery for place, delivery in enumerate(chunk)}
            entries: Any = [entry | {"VisibilityTimeout": timeout_s} for entry in _entries(left)]
            with self._outages(operation):
                answer = self._hot_calls.change_message_visibility_batch(
                    QueueUrl=self._queue_url, Entries=entries
                )
            # No retry: the next heartbeat follows soon, and a failure costs at most a redelivery.
            _still_failed(operation, left, answer.get("Failed", []))

    @contextmanager
    def _outages(self, operation: str) -> Iterator[None]:
        """Convert botocore's exceptions to our errors, with messages that contain no body and no secret."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - with the driver
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        try:
            yield
        except ClientError as error:
            metrics.source_errors.labels(operation=operation).inc()
            code = error.response.get("Error", {}).get("Code", "unknown")
            self._note(code)
            words = with_advice(f"SQS refuses to {operation}: {code}", code)
            raise self._refusal.error(words) from error
        except BotoCoreError as error:
            metrics.source_errors.labels(operation=operation).inc()
            name = type(error).__name__
            words = with_advice(f"SQS can't be reached to {operation}: {name}", name)
            raise SourceUnavailable(words) from error
        except (ResponseParserError, *NOT_READABLE) as error:
            metrics.source_errors.labels(operation=operation).inc()
            name = type(error).__name__
            raise SourceUnavailable(
                f"what answers as SQS, asked to {operation}, can't be read: {name}"
            ) from error
        self._refusal.over()

    def _note(self, code: str) -> None:
        # Some services add a prefix to codes (AWS.SimpleQueueService. and the like).
        match code.rsplit(".", 1)[-1]:
            case name if name in _QUEUE_MISSING:
                self._refusal.missing(f"make the queue {self.name}, or mend SQS_QUEUE_URL")
            case name if name in _CREDENTIALS_REFUSED and self._keys_given:
                self._refusal.credentials(
                    "give a valid AWS_ACCESS_KEY_ID (with AWS_SESSION_TOKEN, if it has one), or none where "
                    "there is a role"
                )
            case _:
                self._refusal.over()


def sqs_client(settings: ReceiveSettings) -> "SQSClient":
    """Make a boto3 client whose timeouts are bounded and longer than a long poll.

    Raises SettingsError if the settings and boto3's own configuration are incomplete, for example without a
    region.
    """
    return _session_and_client(settings)[1]


def _session_and_client(settings: ReceiveSettings) -> "tuple[Session, SQSClient]":
    # The driver is imported when a source is opened.
    from processor.brokers.boto3_client import client_config, session_and_client  # noqa: PLC0415

    config = client_config(
        # Two attempts for a brief failure. OutageRetry retries real outages, and reports them.
        attempts=2,
        read_timeout_s=settings.receive_wait_s + _SILENCE_S_MAX,
        connections=settings.receivers + settings.settlers + 4,
    )
    session, client = session_and_client(settings.aws_client_options(), settings.require_endpoint, config)
    # Else boto3 reads an HTML page as an answer without messages.
    client.meta.events.register("response-received.sqs.ReceiveMessage", _demand_json)
    return session, client


def _demand_json(parsed_response: Any, response_dict: Any, **_: Any) -> None:  # noqa: ANN401 - botocore's event
    """Raise ValueError if an answer without messages is not a JSON object.

    An empty body is accepted, since SQS has been seen to send one.
    """
    if parsed_response is None or response_dict["status_code"] != _OK or not response_dict["body"]:
        return
    if "Messages" not in parsed_response and not isinstance(json.loads(response_dict["body"]), dict):
        raise ValueError("expected a JSON object")


def _lean_calls(session: "Session", client: "SQSClient") -> HotCalls:
    """Return the fast client if the configuration is plain; else log why, and return boto3's client."""
    from processor.brokers.fast_sqs.plain_case import lean_sqs, oddity  # noqa: PLC0415 - with the driver

    why_not = oddity(session, client)
    if why_not is not None:
        log.info("boto3_makes_all_calls", because=why_not)
        return client
    return lean_sqs(session, client)


def _tens(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, SqsSource.call_size)):
        yield chunk


def _entries(deliveries: Mapping[str, Delivery]) -> Any:  # noqa: ANN401 - boto3's dictionaries
    # The id is the place in the call, not the message id: one message may occur twice in a call.
    return [{"Id": place, "ReceiptHandle": delivery.receipt} for place, delivery in deliveries.items()]


def _still_failed(
    operation: str, asked: Mapping[str, Delivery], failed: Sequence[Any]
) -> dict[str, Delivery]:
    """Return the failed entries of a batch that can be retried; log the others."""
    again, lost = {}, 0
    for entry in failed:
        metrics.source_errors.labels(operation=operation).inc()
        if entry.get("SenderFault"):
            # An outdated receipt: the message was redelivered, and the newer delivery will be settled.
            lost += 1
        elif entry["Id"] in asked:
            again[entry["Id"]] = asked[entry["Id"]]
    if lost:
        log.info("receipts_outdated", operation=operation, count=lost)
    return again
