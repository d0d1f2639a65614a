"""Decides what a sender may send: event types, producers, voids and corrections.

    Envelope ─▶ Rights.complete (default producer) ─▶ Rights.denial ─▶ Denied | None

The decision uses the final event, whatever form its values came in: headers, attributes, a compressed body.
Tenant, producer and id identify a message: a sender without the right to a producer's name can neither take
an id of that producer nor void a message of it.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple
from urllib.parse import unquote

from msgspec.structs import replace

from processor.wire.envelope import Envelope
from processor.wire.json_pointer import follow, steps

VOID = "void"
"""The event type that cancels another message: its counted amounts are subtracted."""

UNNAMED = '""'
"""The empty producer in options, settings and messages."""

_LISTED_MAX, _SEEN_MAX = 5, 64


class Denied(NamedTuple):
    """Why an event is denied: the missing right, the pointer, and the message.

    `option` grants the right, in `processor key add`.
    """

    right: str
    pointer: str
    message: str
    option: str


@dataclass(frozen=True, slots=True)
class EventMeaning:
    """The parts of the registry that give an event its meaning.

    `scopes` has the event types that are the first part of stored producers, and the count of values after
    it. `corrections` has, by event type, the places where a meter adds numbers that may be negative; tenant
    None: any.
    """

    scopes: Mapping[str, int] = field(default_factory=dict)
    corrections: Mapping[str, tuple[tuple[str | None, tuple[str, ...]], ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, scopes: Iterable[tuple[str, int]], corrections: Iterable[tuple[str, str | None, str]]
    ) -> "EventMeaning":
        """Index event types with their number of values, and event types, tenants and JSON pointers."""
        found: dict[str, tuple[tuple[str | None, tuple[str, ...]], ...]] = {}
        for event_type, tenant_id, pointer in corrections:
            found[event_type] = (*found.get(event_type, ()), (tenant_id, steps(pointer)))
        return cls(dict(scopes), found)

    def scope_of(self, producer: str) -> str | None:
        """Return the event type with an id scope whose stored producers could equal this name."""
        first, slash, _ = producer.partition("/")
        if not slash or not self.scopes:
            return None
        event_type = unquote(first)
        return event_type if event_type in self.scopes else None

    def sender_of(self, stored: str) -> str | None:
        """Return the event's producer for a stored producer; None: no event has it."""
        event_type = self.scope_of(stored)
        if event_type is None:
            return stored
        match len(parts := stored.split("/")) - self.scopes[event_type]:
            case 1:
                return ""
            case 2:
                return unquote(parts[-1], errors="surrogatepass")
        return None

    def corrects(self, envelope: Envelope) -> tuple[str, ...] | None:
        """Return the path of a negative amount that a meter would add; None: none."""
        for tenant_id, path in self.corrections.get(envelope.event_type, ()):
            if tenant_id in (None, envelope.tenant_id):
                value = follow(envelope.payload_value, path)
                # Also in quotes: a meter may later count those, and stored events.
                if value.lstrip().startswith("-") if isinstance(value, str) else _is_negative(value):
                    return path
        return None


NO_GROUND = EventMeaning()


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of a sender; None: any event type, any producer that is not `reserved`.

    A name in `producers` or `reserved` that ends with `*` is a prefix. The empty name is for events without a
    producer.
    """

    event_types: frozenset[str] | None = None
    producers: tuple[str, ...] | None = None
    may_void: bool = True
    may_correct: bool = True
    reserved: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any], reserved: tuple[str, ...] = ()) -> "Rights":
        """Read the columns of a key or a queue."""
        event_types, producers = row["event_types"], row["producers"]
        found = cls(
            None if event_types is None else frozenset(event_types),
            None if producers is None else tuple(producers),
            row["may_void"],
            row["may_correct"],
            reserved,
        )
        return EVERYTHING if found == EVERYTHING else found

    @property
    def implied(self) -> str:
        """The default producer: the only one of the sender; else the empty name."""
        names = self.producers or ()
        return names[0] if len(names) == 1 and not names[0].endswith("*") else ""

    def admits(self, producer: str) -> bool:
        """Return whether the sender may use a producer's name."""
        if self.producers is not None:
            return _among(producer, self.producers)
        return not _among(producer, self.reserved)

    def complete(self, envelope: Envelope) -> Envelope:
        """Return the event with the default producer, also for the message that it voids."""
        if self.producers is None or not (implied := self.implied):
            return envelope
        if not envelope.producer:
            envelope = replace(envelope, producer=implied)
        payload = envelope.payload_value
        if envelope.event_type != VOID or not isinstance(payload, dict) or "producer" in payload:
            return envelope
        text = f'{envelope.payload.strip()[:-1]}{", " if payload else ""}"producer": {quoted(implied)}}}'
        return replace(envelope, payload=text, payload_value={**payload, "producer": implied})

    def denial(self, envelope: Envelope, ground: EventMeaning) -> Denied | None:
        """Return why the sender may not send a completed event; None: allowed."""
        if self is EVERYTHING:
            return None
        return self._type(envelope) or self._producer(envelope, ground) or self._taking_back(envelope, ground)

    def _type(self, envelope: Envelope) -> Denied | None:
        event_type = envelope.event_type
        if event_type == VOID:
            if self.may_void:
                return None
            words = f"event_type: {VOID!r} cancels another message; that needs the right may_void"
            return Denied("may_void", "/event_type", words, "--may-void")
        if self.event_types is None or event_type in self.event_types:
            return None
        return Denied(
            "event_types",
            "/event_type",
            f"event_type: expected {_listed(sorted(self.event_types))} (right event_types); "
            f"saw {event_type[:_SEEN_MAX]!r}",
            f"--event-types {_option(event_type)}",
        )

    def _producer(self, envelope: Envelope, ground: EventMeaning) -> Denied | None:
        producer = envelope.producer
        if envelope.event_type not in ground.scopes and (scoped := ground.scope_of(producer)) is not None:
            words = (
                f"producer: {shown(producer)} is a prefix of events of type {scoped[:_SEEN_MAX]!r}, whose "
                "ids have a scope; expected a producer without this prefix"
            )
            return Denied("producers", "/producer", words, "--producer NAME")
        if self.admits(producer):
            return None
        return self._not_admitted(producer, "/producer", "producer: ")

    def _taking_back(self, envelope: Envelope, ground: EventMeaning) -> Denied | None:
        if envelope.event_type == VOID:
            payload = envelope.payload_value
            stored = payload.get("producer", "") if isinstance(payload, dict) else None
            if not isinstance(stored, str):
                # The void cancels nothing, and is rejected where meters count.
                return None
            sender = ground.sender_of(stored)
            if sender is not None and self.admits(sender):
                return None
            return self._not_admitted(
                stored, "/payload/producer", "a void of a message of another producer: "
            )
        path = None if self.may_correct else ground.corrects(envelope)
        if path is None:
            return None
        where = "/" + "/".join(("payload", *path))
        words = f"{where[1:]}: a negative amount reverses counted usage; that needs the right may_correct"
        return Denied("may_correct", where, words, "--may-correct")

    def _not_admitted(self, producer: str, pointer: str, words: str) -> Denied:
        expected = (
            f"expected {_listed(map(shown, self.producers))} (right producers)"
            if self.producers is not None
            else "expected a producer that is not reserved"
        )
        seen = "none" if not producer else shown(producer)
        return Denied(
            "producers", pointer, f"{words}{expected}; saw {seen}", f"--producer {_option(producer)}"
        )


EVERYTHING = Rights()
"""The rights of a sender without rules; always this object, because every such event needs it."""

NEITHER = Rights(may_void=False, may_correct=False)
"""The rights of a key without rules: no voids and no corrections."""


def shown(producer: str) -> str:
    """Format a producer's name as in options and settings."""
    return producer[:_SEEN_MAX] or UNNAMED


def _option(name: str) -> str:
    """Quote a sender's name for a shell."""
    return shlex.quote(name or UNNAMED) if len(name) <= _SEEN_MAX else "NAME"


def _among(producer: str, names: Iterable[str]) -> bool:
    return any(producer.startswith(name[:-1]) if name.endswith("*") else producer == name for name in names)


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _LISTED_MAX
    return " or ".join(known[:_LISTED_MAX]) + (f" ({more} more)" if more > 0 else "")


def _is_negative(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return type(value) in (int, float, Decimal) and value < 0
