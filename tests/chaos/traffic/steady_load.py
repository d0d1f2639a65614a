"""A steady load during faults: fake events at a constant rate, with a manifest."""

import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import ProcessorError
from processor.wire.manifest import ManifestWriter
from producers.fake.faults import FAULT_KINDS
from producers.fake.messages import SAMPLE_TENANTS, FakePlan, fake_messages
from producers.publishers import Publisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.report import MEANT
from producers.publishers.sqs import SqsPublisher
from tests.chaos.traffic.pulses import DIGITS, Key, Pulses, load_since, with_voids

_AMOUNTS = ("total", "amount", "used_amount")
_BATCH = 10


@dataclass(slots=True)
class Sent:
    """What the queue accepted: when, by delivery id (Unix time), and the exact amount of each message.

    `amounts` has the events that are stored whatever comes first; those with a rival under the same id are
    in `rivals`, since either may win.
    """

    accepted_at: dict[str, float] = field(default_factory=dict)
    amounts: dict[Key, Decimal] = field(default_factory=dict)
    rivals: set[Key] = field(default_factory=set)
    pulses: Pulses = field(default_factory=Pulses)

    def note(self, receipt: AcceptedMessage, *, keep_moment: bool = True) -> None:
        """Note what was accepted."""
        message = receipt.message
        if keep_moment:
            self.accepted_at[receipt.delivery_id] = time.time()
        self.pulses.note(message)
        key = (message.tenant_id, message.message_id)
        if message.kind == "id_conflict":
            self.rivals.add(key)
        elif message.kind == "valid" and (amount := _amount(message)) is not None:
            self.amounts[key] = amount

    def total(self) -> Decimal:
        """The sum that must be in the table, rivals left out."""
        with localcontext(prec=DIGITS):
            return sum((amount for key, amount in self.amounts.items() if key not in self.rivals), Decimal(0))


class SteadyLoad:
    """Sends `rate` messages a second until told to stop: some bad, some doubled, some pulses voided."""

    def __init__(self, sqs: EmbeddedSqs, queue_url: str, manifest: Path, *, rate: int, seed: int) -> None:
        self.manifest = manifest
        self.more_manifests: list[Path] = []
        self.sent = Sent()
        self.failure: ProcessorError | None = None
        self.publisher: Publisher = SqsPublisher(sqs.client(), queue_url)
        """Where it sends; to be changed before the start."""
        self.duplicates = 0.05
        """The share of events that are sent once more; likewise."""
        self._rate = rate
        self._seed = seed
        self._extra: queue.SimpleQueue[Outgoing] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="load", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def also(self, message: Outgoing) -> None:
        """Send this one too, at the next turn."""
        self._extra.put(message)

    def stop(self) -> None:
        """Send no more; returns when the last answer has come."""
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        try:
            with ManifestWriter(self.manifest) as manifest:
                publish_run = PublishRun(self.publisher, manifest, senders=2, wait_s_max=5)
                for receipt in publish_run.publish(self._messages(), batch_size_max=_BATCH):
                    if isinstance(receipt, AcceptedMessage):
                        self.sent.note(receipt)
                    else:
                        # A gateway refuses itself what was spoilt on purpose, and nothing else.
                        assert receipt.message.kind in FAULT_KINDS, receipt
                        assert receipt.code in MEANT, receipt
        except ProcessorError as error:
            self.failure = error

    def _messages(self) -> Iterator[Outgoing]:
        plan = FakePlan(
            events=1_000_000_000,
            seed=self._seed,
            tenants=SAMPLE_TENANTS,
            invalid=0.08,
            duplicates=self.duplicates,
            since=load_since(),
        )
        began_at = time.monotonic()
        for number, message in enumerate(with_voids(random.Random(self._seed), fake_messages(plan))):
            if self._stop.wait(max(0.0, began_at + number / self._rate - time.monotonic())):
                return
            yield message
            with contextlib.suppress(queue.Empty):
                yield self._extra.get_nowait()


def _amount(message: Outgoing) -> Decimal | None:
    """Find the amount in a valid event, whichever format it has."""
    document: Any = json.loads(message.body, parse_float=Decimal, parse_int=Decimal)
    payload = document.get("payload") or document.get("data") or document
    return next((payload[name] for name in _AMOUNTS if name in payload), None)
