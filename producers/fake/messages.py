"""Simulates the producers of some tenants: valid events, invalid ones and duplicates, reproducible by seed.

Plan ─▶ for each of N messages: valid │ duplicate of an earlier one │ a fault ─▶ Outgoing
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

import orjson

from processor.errors import Reason
from producers.fake.events import (
    COUNTED,
    EPOCH,
    EventForm,
    FakeEvent,
    Spelling,
    encode,
    invent,
    invent_counted,
)
from producers.fake.faults import choose_fault, spoil
from producers.publishers.outgoing import Outgoing

SAMPLE_TENANTS = ("acme", "globex", "initech", "umbrella", "hooli")
RECENT_MAX = 256
"""How far back a duplicate or a conflict reaches, in events."""
VERSION_NAMED = 0.1
"""The share of native events that name their schema's version."""


@dataclass(frozen=True, slots=True)
class FakePlan:
    """What to send: `events` messages in all, of which `invalid` and `duplicates` are shares from 0 to 1.

    The first event occurred at `since`, the others in steps of 0.37 s after it. With `counter` all of them
    are events of the counter.
    """

    events: int
    seed: int
    tenants: tuple[str, ...] = SAMPLE_TENANTS
    invalid: float = 0.0
    duplicates: float = 0.0
    since: datetime = EPOCH
    counter: bool = False

    def run(self) -> str:
        """Return the name of this run in its ids: the seed, and a digest of the other options.

        So the same plan repeats its ids with the same contents, and another plan shares no id with it. The
        number of events is not part of the digest: a longer run begins like a shorter one.
        """
        depends = (self.seed, self.tenants, self.invalid, self.duplicates, self.since.isoformat())
        mark = sha256(f"{depends!r}{'counter' if self.counter else ''}".encode()).hexdigest()
        return f"{self.seed}-{mark[:6]}"


@dataclass(slots=True)
class _FakeSent:
    """An event that was sent and may be repeated: unchanged, or with the same id and another payload."""

    event: FakeEvent
    form: EventForm
    copied: bool = False


def sample_tenants(count: int) -> tuple[str, ...]:
    """Return the names of the first `count` tenants: the five sample ones, then tenant-0006 and so on."""
    return (*SAMPLE_TENANTS[:count], *(f"tenant-{number:04d}" for number in range(6, count + 1)))


def fake_messages(plan: FakePlan) -> Iterator[Outgoing]:
    """Generate the messages of a plan; equal plans give equal bodies and ids."""
    rng = random.Random(plan.seed)
    run = plan.run()
    weights = [1 / rank for rank in range(1, len(plan.tenants) + 1)]
    recent: list[_FakeSent] = []
    make = invent_counted if plan.counter else invent
    for number in range(1, plan.events + 1):
        lot = rng.random()
        if lot < plan.duplicates and recent:
            yield _duplicate(rng, recent)
            continue
        # The first tenants send the most, as in production.
        event = make(rng, rng.choices(plan.tenants, weights)[0], run, number, plan.since)
        form = rng.choice(tuple(EventForm))
        if plan.duplicates <= lot < plan.duplicates + plan.invalid:
            yield _fault(rng, event, form, recent)
            continue
        if form is EventForm.NATIVE and rng.random() < VERSION_NAMED:
            event = replace(event, schema_version=1)
        recent.append(_FakeSent(event, form))
        del recent[:-RECENT_MAX]
        yield encode(event, form)


def _duplicate(rng: random.Random, recent: list[_FakeSent]) -> Outgoing:
    original = rng.choice(recent)
    original.copied = True
    return encode(original.event, original.form, rng.choice(tuple(Spelling)), kind="duplicate")


def _fault(rng: random.Random, event: FakeEvent, form: EventForm, recent: list[_FakeSent]) -> Outgoing:
    reason = choose_fault(rng)
    if reason is not Reason.ID_CONFLICT:
        return spoil(rng, event, form, reason)
    # The event that is saved first wins. So that exactly one of the two is stored and one rejected, an event
    # with a duplicate gets no conflict, and an event with a conflict leaves the list.
    originals = [sent for sent in recent if not sent.copied]
    if not originals:
        return spoil(rng, event, form, Reason.SCHEMA_VIOLATION)
    original = rng.choice(originals)
    recent.remove(original)
    return encode(_contradict(original.event), original.form, kind=str(reason))


def _contradict(event: FakeEvent) -> FakeEvent:
    """Make another valid event with the same id."""
    if event.event_type in COUNTED:
        # With another user the id would be unique again.
        return replace(event, occurred_at="1999-12-31T23:59:59Z")
    name, value = {
        "order.created": ("total", 0.01),
        "user.signed_up": ("locale", "la"),
        "payment.captured": ("amount", 0.01),
        "pulse": ("used_amount", orjson.Fragment("0.1")),
    }[event.event_type]
    return replace(event, payload=event.payload | {name: value})
