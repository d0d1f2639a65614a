"""Dead letters: messages of the dead-letter queue are imported as rejections.

    queue ── received too often ──▶ dead-letter queue ─▶ look      peek, and give back
                                                      └▶ bring_in  rejection ══COMMIT══▶ delete

SQS keeps the id of a message that it moves there, so an imported rejection has its original queue and
delivery id. A replay resolves that rejection, so a delivery never counts twice.
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
"""Long polling queries all SQS servers; short polling may miss messages."""


class DeadLetterSource(Source, Protocol):
    """A dead-letter queue; its deliveries name their original queue if it is known."""

    def moved_from(self) -> list[str]:
        """List the queues whose dead-letter queue this is at present."""


class DeadLetterStore(Protocol):
    """The store, as far as the import uses it."""

    def save(self, verdicts: Sequence[Verdict]) -> list[Settlement]: ...  # noqa: D102


class DeadLetterJudge:
    """Rejects every delivery as dead_lettered, with the present verdict of `schemas` in the detail.

    `unread` skips the bodies, because some crash their reader; their claimed senders are unknown then.
    `queue` is the dead-letter queue's name.
    """

    def __init__(self, schemas: Schemas, queue: str, *, unread: bool = False) -> None:
        self._schemas = schemas
        self._queue = queue
        self._unread = unread

    @property
    def version(self) -> int:
        """The version of the installed registry."""
        return self._schemas.version

    def install(self, registry: Registry) -> None:
        """Use this registry from now on."""
        self._schemas.install(registry)

    def validate(self, delivery: Delivery) -> Rejection:
        """Return the rejection of a dead letter."""
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
        """Describe a dead letter without its payload, with its claimed sender."""
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
    """Receive up to `limit` dead letters and release them; their receive counts rise by one."""
    seen: dict[str, Delivery] = {}
    try:
        while len(seen) < limit:
            deliveries = source.receive(min(source.call_size, limit - len(seen)), _POLL_S)
            # A standard queue may deliver the same message again and again.
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
    """Import dead letters until the queue is empty, `limit` is reached or `stop` is set; returns outcomes.

    Messages with an outcome are only deleted. An interruption loses nothing: saved messages are recognized
    the next time, the others are released or become visible again. `named` is their original queue if SQS
    does not report it; SettingsError without it if that is unknown. `on_batch` gets the count so far.
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
                # One by one, each saved before the next is read: the next may crash this process.
                settlements += store.save([judge.validate(origin.of(delivery))])
        finally:
            # After their commits; unsaved messages become visible again.
            source.settle(settlements)
            source.release(deliveries[len(settlements) :])
        outcomes.update(settlement.outcome.value for settlement in settlements)
        on_batch(outcomes.total())
    return outcomes


class _Origin:
    """The original queue of a dead letter; never guessed, since it is half of the delivery's key."""

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
