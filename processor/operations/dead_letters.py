"""What the pipeline itself could not do, brought into the books: the dead-letter queue becomes rejections.

    queue ── received too often ──▶ dead-letter queue ─▶ look      peek, and give back
                                                      └▶ bring_in  rejection ══COMMIT══▶ delete

SQS keeps the id of a message that it moves there, so what is brought in stands under the queue it came from
and its own delivery id. A replay then ends it in its place, and the same delivery is never counted twice.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

import structlog
from msgspec.structs import replace

from processor.errors import Reason, SettingsError, SourceUnavailable
from processor.model import Delivery, Message, Registry, Rejection, Settlement, Verdict
from processor.sources import Source
from processor.store.database_rejections import UNREADABLE
from processor.validation.validator import Schemas
from processor.wire.formats import Claimed

log = structlog.get_logger(__name__)

_POLL_S = 1.0
"""A poll that waits asks every server of SQS; one that does not may miss what is there."""


class DeadLetterSource(Source, Protocol):
    """A dead-letter queue, whose deliveries name the queue they were moved from where that is known."""

    def moved_from(self) -> list[str]:
        """Name the queues for which this one is the dead-letter queue now."""


class DeadLetterStore(Protocol):
    """What is asked of the database."""

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]: ...  # noqa: D102


class DeadLetterJudge:
    """Rejects every delivery as dead_lettered, and notes what `schemas` would say of it today.

    With `unread` the bodies are not looked at, for those that kill whoever reads them: then nobody knows who
    they claim to be from. `queue` is the dead-letter queue's name.
    """

    def __init__(self, schemas: Schemas, queue: str, *, unread: bool = False) -> None:
        self._schemas = schemas
        self._queue = queue
        self._unread = unread

    @property
    def version(self) -> int:
        """The version of the registry that verdicts are made with."""
        return self._schemas.version

    def install(self, registry: Registry) -> None:
        """Judge by this registry from now on."""
        self._schemas.install(registry)

    def validate(self, delivery: Delivery) -> Rejection:
        """Give the rejection that a dead letter becomes."""
        if self._unread:
            words = "the body was not read (--unread)"
            detail = self._detail(delivery, {"message": words}, words)
            return replace(self._schemas.unread(delivery, Reason.DEAD_LETTERED, detail), final=False)
        verdict = self._schemas.validate(delivery)
        if isinstance(verdict, Message):
            claimed = Claimed(verdict.tenant_id, verdict.event_type, verdict.message_id, verdict.producer)
            today: dict[str, Any] = {"message": "stored"}
            words, key_known = "would be stored if replayed", True
        else:
            claimed, key_known = verdict.claimed, verdict.reason not in UNREADABLE
            today = {"reason": verdict.reason.value, "message": verdict.detail.get("message")}
            words = f"would be rejected: {verdict.reason.value}, {today['message']}"
        return Rejection(
            delivery,
            verdict.registry_version,
            Reason.DEAD_LETTERED,
            self._detail(delivery, today, words),
            claimed,
            key_known,
            proven_tenant=verdict.proven_tenant,
        )

    def describe(self, delivery: Delivery) -> dict[str, Any]:
        """Tell of a dead letter what can be told without its payload, and who it claims to be from."""
        claimed = self.validate(delivery if delivery.queue else replace(delivery, queue="?")).claimed
        return {
            "delivery_id": delivery.delivery_id,
            "sent_at": delivery.sent_at,
            "receive_count": delivery.receive_count,
            "queue": delivery.queue or None,
            "tenant_id": claimed.tenant_id,
            "event_type": claimed.event_type,
            "message_id": claimed.message_id,
            "producer": claimed.producer,
            "size_bytes": len(delivery.body),
        }

    def _detail(self, delivery: Delivery, today: dict[str, Any], words: str) -> dict[str, Any]:
        return {
            "message": f"dead letter, sent {delivery.sent_at:%Y-%m-%dT%H:%M:%SZ}, "
            f"received {delivery.receive_count} times; {words}",
            "dead_letter_queue": self._queue,
            "verdict_today": today,
        }


def look(source: Source, limit: int) -> list[Delivery]:
    """Receive up to `limit` dead letters and give them all back; each has one receive more then."""
    seen: dict[str, Delivery] = {}
    try:
        while len(seen) < limit:
            deliveries = source.receive(min(source.call_size, limit - len(seen)), _POLL_S)
            # A standard queue may hand one over twice, and for ever.
            if not any(delivery.delivery_id not in seen for delivery in deliveries):
                break
            seen |= {delivery.delivery_id: delivery for delivery in deliveries}
    finally:
        source.release(list(seen.values()))
    return list(seen.values())


def bring_in(
    source: DeadLetterSource,
    judge: DeadLetterJudge,
    store: DeadLetterStore,
    *,
    named: str | None,
    limit: int | None,
    stop: Event,
    on_batch: Callable[[int], object],
) -> Counter[str]:
    """Save what waits as rejections until nothing comes, `limit` is reached or `stop` is set; count outcomes.

    What has an outcome already is only deleted. Whatever ends this early loses nothing: what was saved is
    known the next time, the rest is given back or comes back by itself. `named` is the queue they are from
    where SQS does not say; SettingsError without it where that can't be known. `on_batch` is told the count
    so far.
    """
    outcomes: Counter[str] = Counter()
    origin = _Origin(source, named)
    while not stop.is_set() and (limit is None or outcomes.total() < limit):
        room = source.call_size if limit is None else min(source.call_size, limit - outcomes.total())
        deliveries = source.receive(room, _POLL_S)
        if not deliveries:
            break
        settlements: list[Settlement] = []
        try:
            for delivery in deliveries:
                # One by one, and saved before the next is read: the next may be what kills its readers.
                settlements += store.save([judge.validate(origin.of(delivery))])
        finally:
            # Behind their commits, and the others are nobody's loss.
            source.settle(settlements)
            source.release(deliveries[len(settlements) :])
        outcomes.update(settlement.outcome.value for settlement in settlements)
        on_batch(outcomes.total())
    return outcomes


class _Origin:
    """Which queue a dead letter was moved from; never a guess, since it is half of the delivery's key."""

    def __init__(self, source: DeadLetterSource, named: str | None) -> None:
        self._source = source
        self._named = named

    def of(self, delivery: Delivery) -> Delivery:
        if delivery.queue:
            return delivery
        if self._named is None:
            self._named = self._only_source()
        return replace(delivery, queue=self._named)

    def _only_source(self) -> str:
        try:
            names = self._source.moved_from()
        except SourceUnavailable as error:
            found = f"and to list the queues it serves failed ({error})"
        else:
            if len(names) == 1:
                return names[0]
            found = f"and it serves {', '.join(sorted(names)) or 'none now'}"
        raise SettingsError(
            f"SQS does not say which queue a dead letter was moved from, {found}; "
            "nothing more was brought in. Name that queue: --source QUEUE_NAME"
        )
