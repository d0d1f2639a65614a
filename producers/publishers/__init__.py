"""Clients that send events to SQS, a gateway, RabbitMQ or Kafka.

    PublishRun ─▶ Publisher.send ─▶ SQS │ HTTP gateway │ gRPC gateway │ RabbitMQ │ Kafka

Retries, pauses and the manifest belong to the run; a publisher makes one call and tells how it ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from producers.publishers.outgoing import Outgoing

UNAVAILABLE = "unavailable"
"""What a gateway says of an event where the queue behind it is away, or it is about to stop."""


WAIT_S_MAX = 86_400.0
"""The longest wait that is taken from an answer; the publisher's own bound is far below."""


@dataclass(slots=True)
class Answer:
    """What one call brought, by the places of the messages in it.

    `accepted` has the id that the queue gave; `refused` (code, reason) what is the message's own fault, and
    `again` what may work at another try, `wait_s` from now at the earliest; the code UNAVAILABLE in it speaks
    of an outage. A message that stands in none of them may or may not be there.
    """

    accepted: dict[int, str] = field(default_factory=dict)
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    again: dict[int, tuple[str, str]] = field(default_factory=dict)
    wait_s: float = 0.0


class CallFailed(Exception):
    """A whole call failed, and nothing is known to have been taken.

    With `outage` another try may work, `wait_s` from now at the earliest; else some message in it is at
    fault, and the publisher can't say which.
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
        """What errors call it: a URL without any secret."""

    @property
    def ordered(self) -> bool:
        """Whether order matters, so that one thread alone may send."""

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send these messages in one call, in their order.

        Raises CallFailed, and SettingsError where no other try can help.
        """

    def close(self) -> None:
        """Let go of connections."""
