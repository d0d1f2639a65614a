"""Clients that send events to SQS, a gateway, RabbitMQ or Kafka.

    PublishRun ─▶ Publisher.send ─▶ SQS │ HTTP gateway │ gRPC gateway │ RabbitMQ │ Kafka

Retries, backoff and the manifest belong to the run; a publisher makes one call and reports its result.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from producers.publishers.outgoing import Outgoing

UNAVAILABLE = "unavailable"
"""A gateway's code for an event while its queue is unavailable or the gateway stops."""


WAIT_S_MAX = 86_400.0
"""The longest wait that an answer can ask for; the publisher's own limit is far below."""


@dataclass(slots=True)
class Answer:
    """The result of one call, by the index of each message.

    `accepted` has the id from the queue; `refused` has (code, reason) of faulty messages; `again` has those
    of messages to retry, not before `wait_s` seconds; the code UNAVAILABLE there means an outage. A message
    that is in none of them may or may not be on the queue.
    """

    accepted: dict[int, str] = field(default_factory=dict)
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    again: dict[int, tuple[str, str]] = field(default_factory=dict)
    wait_s: float = 0.0


class CallFailed(Exception):
    """A whole call failed; no message of it is known to be on the queue.

    With `outage` a retry may work, not before `wait_s` seconds. Otherwise some message in it is at fault, and
    the publisher does not know which.
    """

    def __init__(self, code: str, reason: str, *, outage: bool, wait_s: float = 0.0) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.outage = outage
        self.wait_s = wait_s


class Publisher(Protocol):
    """A client of one protocol. `send` may be called by several threads at once, unless it is `ordered`."""

    @property
    def name(self) -> str:
        """The name in error messages: a URL without secrets."""

    @property
    def ordered(self) -> bool:
        """Whether order matters, so that only one thread may send."""

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send these messages in one call, in their order.

        Raises CallFailed, and SettingsError if a retry can't help.
        """

    def close(self) -> None:
        """Close the connections."""
