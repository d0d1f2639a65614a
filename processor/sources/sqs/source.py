"""SQS: long polls, deletes in tens after the commit, and a longer visibility timeout for what is held."""

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
"""For how long a call may stay without an answer, beyond the wait of a long poll."""

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
"""Codes that speak of the key itself. AccessDenied is none: a policy can be mended while we wait."""

_QUEUE_MISSING = frozenset({"NonExistentQueue", "QueueDoesNotExist"})

_ATTRIBUTES: "list[MessageSystemAttributeNameType]" = [
    "ApproximateReceiveCount",
    "SentTimestamp",
    "SenderId",
]

_SETTLE_PAUSES_S = (0.1, 0.5, 2.0, 0.0)
"""After each try to delete, before what failed is tried again; the last try is the end."""


class SqsSource:
    """One SQS queue, standard or FIFO. Groups are orders on a FIFO queue only; elsewhere they mean fairness.

    `queue` is its name in the tables. None: a dead-letter queue, whose deliveries bear the name of the queue
    that SQS moved them from, and an empty one where SQS does not say.
    `hot_calls` makes the three calls that every message passes; unless given, the client makes all.
    With `keys_given` its credentials came by settings and nothing renews them: refused for REFUSED_S_MAX,
    they raise SourceFault, so that whoever starts us again can bring new ones. A queue that does not exist
    for as long raises SettingsError. All else that goes wrong is an outage (SourceUnavailable), a role's
    credentials included, which boto3 renews by itself. `stop` ends the pauses between tries to delete, and
    then there is no other try.
    """

    call_size = 10
    """Messages in one call of SQS, for receiving, deleting and extending alike (SQS quotas)."""

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
        """Make a client by the settings and boto3's own chain. Nothing is called yet."""
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
        """Long-poll once. At most ten come, whatever the limit; `wait_s` is cut to whole seconds."""
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
        """Delete from the queue. This is the one place in the house that does.

        A delete that fails for good is only a warning: the row is committed, and the redelivery that follows
        will be known as one.
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
        """Start the visibility timeout of deliveries anew."""
        self._change_visibility("extend", deliveries, self._visibility_timeout_s)

    def hold_for(self, deliveries: Sequence[Delivery], hold_s: int) -> None:
        """Let the visibility timeout of deliveries end in `hold_s`."""
        self._change_visibility("extend", deliveries, hold_s)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """End the visibility timeout of deliveries now."""
        self._change_visibility("release", deliveries, 0)

    def close(self) -> None:
        """Close idle connections; SQS itself keeps nothing open for us."""
        self._client.close()

    def depth(self) -> dict[str, int]:
        """Count what the queue still has, as it says: visible, in_flight, delayed (approximate on AWS)."""
        with self._outages("count"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._queue_url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            )
            # An answer that does not say how many there are does not say that there are none.
            counts = answer["Attributes"]
            return {
                "visible": int(counts["ApproximateNumberOfMessages"]),
                "in_flight": int(counts["ApproximateNumberOfMessagesNotVisible"]),
                "delayed": int(counts["ApproximateNumberOfMessagesDelayed"]),
            }

    def depth_with_dead_letters(self) -> dict[str, int]:
        """Count as `depth` does, and add dead_lettered: all that is in this queue's dead-letter queue."""
        counts = self.depth()
        other = self.dead_letters(visibility_timeout_s=0)
        if other is not None:
            counts["dead_lettered"] = sum(other.depth().values())
        return counts

    def dead_letters(self, *, visibility_timeout_s: int) -> "SqsSource | None":
        """Give this queue's dead-letter queue, as a source of its own; None: there is none."""
        url = self.dead_letter_queue_url()
        if url is None:
            return None
        return SqsSource(self._client, url, None, visibility_timeout_s=visibility_timeout_s)

    @property
    def name(self) -> str:
        """The queue's own name, the last part of its URL."""
        return self._queue_url.rstrip("/").rsplit("/", 1)[-1]

    def moved_from(self) -> list[str]:
        """Name the queues for which this one is the dead-letter queue now."""
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
        """Find the dead-letter queue by the redrive policy; None: there is none."""
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
            # No retry: the next heartbeat comes soon, and a lost one costs a redelivery at the most.
            _still_failed(operation, left, answer.get("Failed", []))

    @contextmanager
    def _outages(self, operation: str) -> Iterator[None]:
        """Turn whatever botocore raises into an outage or a fault, in words without any body or secret."""
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
        # Some services write a code with their own prefix (AWS.SimpleQueueService. and the like).
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
    """Make a boto3 client whose every wait is bounded and longer than a long poll.

    Raises SettingsError where the settings, or what boto3 finds beside them, make none: no region, say.
    """
    return _session_and_client(settings)[1]


def _session_and_client(settings: ReceiveSettings) -> "tuple[Session, SQSClient]":
    # The driver is imported when a source is opened.
    from processor.brokers.boto3_client import client_config, session_and_client  # noqa: PLC0415

    config = client_config(
        # Two attempts for a blink; a real outage is waited out by OutageRetry, where it shows.
        attempts=2,
        read_timeout_s=settings.receive_wait_s + _SILENCE_S_MAX,
        connections=settings.receivers + settings.settlers + 4,
    )
    session, client = session_and_client(settings.aws_client_options(), settings.require_endpoint, config)
    # Else boto3 takes a page of HTML for an answer without messages.
    client.meta.events.register("response-received.sqs.ReceiveMessage", _demand_json)
    return session, client


def _demand_json(parsed_response: Any, response_dict: Any, **_: Any) -> None:  # noqa: ANN401 - botocore's event
    """Raise ValueError where an answer without messages is no JSON object that has none.

    An empty body has none: some have seen SQS say so.
    """
    if parsed_response is None or response_dict["status_code"] != _OK or not response_dict["body"]:
        return
    if "Messages" not in parsed_response and not isinstance(json.loads(response_dict["body"]), dict):
        raise ValueError("expected a JSON object")


def _lean_calls(session: "Session", client: "SQSClient") -> HotCalls:
    """Give the lean calls where the configuration is plain; else boto3's, and say why in the log."""
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
    # The id is the place in the call and never the message's: the same message may stand in it twice.
    return [{"Id": place, "ReceiptHandle": delivery.receipt} for place, delivery in deliveries.items()]


def _still_failed(
    operation: str, asked: Mapping[str, Delivery], failed: Sequence[Any]
) -> dict[str, Delivery]:
    """Give those entries of a batch that failed and may work again; log those that never will."""
    again, lost = {}, 0
    for entry in failed:
        metrics.source_errors.labels(operation=operation).inc()
        if entry.get("SenderFault"):
            # An old receipt: the delivery has been handed over again since. That one will be settled.
            lost += 1
        elif entry["Id"] in asked:
            again[entry["Id"]] = asked[entry["Id"]]
    if lost:
        log.info("receipts_outdated", operation=operation, count=lost)
    return again
