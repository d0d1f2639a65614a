"""The publisher for SQS: SendMessageBatch, with the tenant as message group for SQS's fair queues."""

import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

from botocore.parsers import ResponseParserError

from processor.wire.bounds import NOT_READABLE
from producers.publishers import Answer, CallFailed
from producers.publishers.outgoing import Outgoing
from producers.publishers.session import CALL_FAILED, blame

GROUP_ID_LENGTH_MAX = 128

_GROUP_REFUSED = ("MessageGroupId", "parameter that is not valid for this queue type")

log = logging.getLogger(__name__)


class BatchClient(Protocol):
    """The part of boto3's SQS client that is used; it is thread-safe."""

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401, N803 - boto3's
        """Send up to ten messages; return `Successful` and `Failed` by entry id."""


class SqsPublisher:
    """One SQS queue, standard or FIFO."""

    def __init__(self, client: BatchClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._fifo = queue_url.endswith(".fifo")
        self._groups = True

    @property
    def name(self) -> str:
        """The queue's URL."""
        return self._queue_url

    @property
    def ordered(self) -> bool:
        """Whether it is a FIFO queue."""
        return self._fifo

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send up to ten messages."""
        request = self.request(batch)
        try:
            return self.read(self._client.send_message_batch(**request))
        except CALL_FAILED as error:
            failed = blame(error, self._queue_url)
            outage = failed.outage or self._gave_up_groups(failed.code, failed.reason)
            raise CallFailed(failed.code, failed.reason, outage=outage) from error
        except (ResponseParserError, *NOT_READABLE) as error:
            name = type(error).__name__
            raise CallFailed(name, "the answer of SQS is malformed", outage=True) from error

    def request(self, batch: Mapping[int, Outgoing]) -> dict[str, Any]:
        """Return the arguments of the call that sends these messages."""
        return {
            "QueueUrl": self._queue_url,
            "Entries": [self._entry(index, message) for index, message in batch.items()],
        }

    def read(self, said: Mapping[str, Any]) -> Answer:
        """Parse SQS's answer to that call."""
        answer = Answer({int(entry["Id"]): entry["MessageId"] for entry in said.get("Successful", ())})
        for entry in said.get("Failed", ()):
            index, code, reason = int(entry["Id"]), str(entry["Code"]), str(entry.get("Message", ""))
            ours = entry["SenderFault"] and not self._gave_up_groups(code, reason)
            (answer.refused if ours else answer.again)[index] = (code, reason)
        return answer

    def close(self) -> None:
        """Do nothing: the client belongs to the caller."""

    def _gave_up_groups(self, code: str, reason: str) -> bool:
        """Tell whether this server accepts groups on FIFO queues only; from then on none are sent."""
        if self._fifo or not any(words in reason for words in _GROUP_REFUSED):
            return False
        if self._groups:
            self._groups = False
            log.warning("no fair queue: the server refuses MessageGroupId on it (%s); going on without", code)
        # True also if another thread has found this out during this call.
        return True

    def _entry(self, index: int, message: Outgoing) -> dict[str, Any]:
        # The entry's id is its index, as the same message may occur twice in one batch.
        entry: dict[str, Any] = {"Id": str(index), "MessageBody": message.body}
        if message.attributes:
            entry["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value}
                for name, value in message.attributes.items()
            }
        if self._fifo:
            entry["MessageDeduplicationId"] = message.deduplication_id
        if self._fifo or (self._groups and message.group):
            entry["MessageGroupId"] = _group_id(message.group or "none")
        return entry


def _group_id(tenant: str) -> str:
    """Return the group's name: the tenant, or a digest if SQS would reject the tenant's name."""
    if len(tenant) <= GROUP_ID_LENGTH_MAX and tenant.isascii() and tenant.isprintable() and " " not in tenant:
        return tenant
    return sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()
