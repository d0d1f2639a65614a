"""What goes through a gateway's intake, whichever protocol it came by: an item in, and a result out."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias, TypeVar

from processor.wire.sender_rights import NEITHER, NO_GROUND, EventMeaning, Rights

T = TypeVar("T")


class Why(Enum):
    """Why an item was not taken: its code in every protocol, and the HTTP status of the same meaning."""

    MALFORMED = ("malformed", 400)
    """No JSON, no UTF-8, or in no known format."""
    UNAUTHENTICATED = ("unauthenticated", 401)
    """No API key, or none that is known."""
    FORBIDDEN = ("forbidden", 403)
    """The key is another tenant's, or has no right to send this."""
    TOO_LARGE = ("too_large", 413)
    INVALID = ("invalid", 422)
    """JSON in a known format, with a field that is missing or wrong."""
    OVER_QUOTA = ("over_quota", 429)
    """The tenant sends more than it may, or the gateway is full; `retry_after_s` says when to come again."""
    UNAVAILABLE = ("unavailable", 503)
    """The queue is away, or has not said yes in time; the item may be on the queue all the same."""

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """One event as it came: the bytes of its body, and what its transport says beside it.

    `attributes` are the wire format's (tenant_id, event_type, message_id, producer, occurred_at,
    schema_version, or any other, which goes into the context). `message_id` is its idempotency key: the id
    of an event that has none of its own. `event_type` is the only one that its path takes; None: any.
    """

    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_id: str | None = None
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends: `tenant_id` is that of the API key; None: no key is asked for, any tenant may be named.

    `trace` has traceparent and tracestate, where the request has them. `address` is where it comes from, for
    those that have no key. `rights` are the key's, judged on the `ground` of the registry.
    """

    tenant_id: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    address: Hashable = None
    rights: Rights = NEITHER
    ground: EventMeaning = NO_GROUND

    @property
    def holder(self) -> Hashable:
        """For whom counts what it uses: its tenant, or without a key its address."""
        return self.address if self.tenant_id is None else self.tenant_id


@dataclass(frozen=True, slots=True)
class Taken:
    """SQS has accepted the item. `delivery_id` is the id that it gave; `made_id`: we made the message id."""

    message_id: str
    delivery_id: str
    tenant_id: str
    made_id: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """The item was not taken: why, in words, and of an invalid one each fault with its JSON pointer.

    `errors` are objects of pointer, rule and message, as in a rejection's detail.
    """

    why: Why
    detail: str
    errors: tuple[Mapping[str, Any], ...] = ()
    retry_after_s: int | None = None


Word: TypeAlias = Taken | Refusal


class Intake(Protocol):
    """Takes items to the queue; all of it on one event loop."""

    def owing(self, caller: Caller) -> Refusal | None:
        """Say that a caller has sent or used more than it may; asked before anything of it is read."""

    def charge(self, caller: Caller, size_bytes: int) -> None:
        """Charge so many bytes to a caller, before they are read where it says how many come."""

    async def do(self, caller: Caller, weight: int, work: Callable[[], T]) -> T | Refusal:
        """Do work of so many bytes for a caller, beside the loop where it may be dear; see `Effort.do`."""

    async def finish(self, caller: Caller, weight: int, work: Callable[[], T]) -> T:
        """Do the same whatever the caller has used."""

    async def take(self, items: "list[Item]", caller: Caller) -> list[Word]:
        """Send what can be sent, and give a word on each item in order. Never raises for what an item says.

        Comes back only when SQS has answered for every item that was sent, or the time for that is over.
        """

    async def ready(self) -> str:
        """Say in words what is in the way of taking anything now; empty when nothing is."""


class Keys(Protocol):
    """The API keys, as the database has them."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        """Say who sends, by `Bearer KEY` (or the bare key); a refusal if nobody known."""

    async def ready(self) -> str:
        """Say in words what is in the way of knowing keys; empty when nothing is."""
