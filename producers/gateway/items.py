"""The values that pass through the intake, the same for every protocol: an item in, a result out."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias, TypeVar

from processor.wire.sender_rights import NEITHER, NO_GROUND, EventMeaning, Rights

T = TypeVar("T")


class Why(Enum):
    """The reason of a refusal: its code in every protocol, and the matching HTTP status."""

    MALFORMED = ("malformed", 400)
    """Invalid JSON, invalid UTF-8, or an unknown format."""
    UNAUTHENTICATED = ("unauthenticated", 401)
    """The API key is missing or unknown."""
    FORBIDDEN = ("forbidden", 403)
    """The key belongs to another tenant, or has no right to send this event."""
    TOO_LARGE = ("too_large", 413)
    INVALID = ("invalid", 422)
    """JSON in a known format, with a field that is missing or wrong."""
    OVER_QUOTA = ("over_quota", 429)
    """The tenant exceeds its rate limit, or the gateway is at capacity; `retry_after_s` is the delay."""
    UNAVAILABLE = ("unavailable", 503)
    """The queue is unavailable, or did not confirm in time. The item may be on the queue nevertheless."""

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """One event as received: the bytes of its body, and the metadata of its transport.

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
    """The sender: `tenant_id` is that of the API key; None: keys are off, events may name any tenant.

    `trace` has traceparent and tracestate, where the request has them. `address` is the client's address,
    for requests without a key. `rights` are the key's, checked against the `ground` of the registry.
    """

    tenant_id: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    address: Hashable = None
    rights: Rights = NEITHER
    ground: EventMeaning = NO_GROUND

    @property
    def holder(self) -> Hashable:
        """The holder of what the caller uses: its tenant, or without a key its address."""
        return self.address if self.tenant_id is None else self.tenant_id


@dataclass(frozen=True, slots=True)
class Taken:
    """SQS has accepted the item. `delivery_id` is SQS's id; `made_id`: the gateway made the message id."""

    message_id: str
    delivery_id: str
    tenant_id: str
    made_id: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """The item was not taken: the reason, a message, and each fault of an invalid item.

    `errors` are objects of JSON pointer, rule and message, as in a rejection's detail.
    """

    why: Why
    detail: str
    errors: tuple[Mapping[str, Any], ...] = ()
    retry_after_s: int | None = None


Word: TypeAlias = Taken | Refusal


class Intake(Protocol):
    """Sends items to the queue. Used on one event loop."""

    def owing(self, caller: Caller) -> Refusal | None:
        """Return a refusal if a caller has exceeded a quota. Ask before its request is read."""

    def charge(self, caller: Caller, size_bytes: int) -> None:
        """Charge so many bytes to a caller; before they are read, if the request announces its length."""

    async def do(self, caller: Caller, weight: int, work: Callable[[], T]) -> T | Refusal:
        """Do work on so many bytes for a caller, outside the event loop if expensive; see `Effort.do`."""

    async def finish(self, caller: Caller, weight: int, work: Callable[[], T]) -> T:
        """Do the same even if the caller has exceeded its quota."""

    async def take(self, items: "list[Item]", caller: Caller) -> list[Word]:
        """Send the valid items, and return one result per item, in order. A bad item never raises.

        Returns when SQS has answered for every item that was sent, or the timeout is over.
        """

    async def ready(self) -> str:
        """Describe why no items can be taken now; empty if they can."""


class Keys(Protocol):
    """The API keys in the database."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        """Return the sender for `Bearer KEY` (or the bare key); a refusal if the key is unknown."""

    async def ready(self) -> str:
        """Describe why keys can't be checked, or may be out of date; empty if all is well."""
