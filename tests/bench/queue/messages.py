"""The state of the queue server: messages, visibility timeouts and receipts."""

import hashlib
import heapq
import os
import time
import uuid
from asyncio import AbstractEventLoop, TimerHandle
from base64 import b64decode
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any, Protocol

import orjson

from tests.bench import events

BODY_BYTES_MAX = 1024 * 1024
EXPIRIES_SLACK = 10_000
ID_LENGTH = 36


class Refused(Exception):
    """SQS would refuse this; `code` is its word for it."""

    def __init__(self, code: str, words: str, query_code: str | None = None) -> None:
        super().__init__(f"{code}: {words}")
        self.code = code
        self.words = words
        self.query_code = query_code or code


class Receiver(Protocol):
    """Who waits for messages: a connection."""

    parked_in: "Queue | None"

    def answer(self, body: bytes) -> None: ...


class State(IntEnum):
    VISIBLE = 0
    HIDDEN = 1
    """In flight or delayed, until `visible_at`."""
    GONE = 2


class Message:
    """One message; what is the same in every answer is put into JSON once."""

    __slots__ = (
        "attributes",
        "first_received_ms",
        "fragment",
        "md5",
        "message_id",
        "receipt",
        "receive_count",
        "sent",
        "sent_ms",
        "state",
        "visible_at",
    )

    def __init__(self, body: bytes, attributes: dict[str, Any] | None = None, *, sent: bool = True) -> None:
        self.message_id = str(uuid.UUID(bytes=os.urandom(16), version=4))
        self.md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self.attributes = attributes or {}
        self.fragment = (
            f'{{"MessageId":"{self.message_id}","MD5OfBody":"{self.md5}","Body":'.encode()
            + orjson.dumps(body.decode())
            + b',"ReceiptHandle":"'
        )
        self.sent = sent
        self.sent_ms = int(time.time() * 1000)
        self.first_received_ms = 0
        self.receive_count = 0
        self.receipt: str | None = None
        self.state = State.VISIBLE
        self.visible_at = 0.0

    def as_json(self, ask: "Ask") -> bytes:
        """Give the message as a receive hands it over, with the attributes that were asked for."""
        system, every = ask.system, "All" in ask.system
        said = []
        if every or "ApproximateReceiveCount" in system:
            said.append(f'"ApproximateReceiveCount":"{self.receive_count}"')
        if every or "SentTimestamp" in system:
            said.append(f'"SentTimestamp":"{self.sent_ms}"')
        if every or "ApproximateFirstReceiveTimestamp" in system:
            said.append(f'"ApproximateFirstReceiveTimestamp":"{self.first_received_ms}"')
        if every or "SenderId" in system:
            said.append('"SenderId":"000000000000"')
        attributes = f',"Attributes":{{{",".join(said)}}}' if said else ""
        rest = f'{self.receipt}"{attributes}'.encode()
        if self.attributes and ask.names:
            rest += self._attributes_json(ask.names)
        return self.fragment + rest + b"}"

    def _attributes_json(self, names: Sequence[str]) -> bytes:
        asked = {
            name: value
            for name, value in self.attributes.items()
            if any(asked in {name, "All"} or _is_prefix(asked, name) for asked in names)
        }
        if not asked:
            return b""
        digest = md5_of_attributes(asked).encode()
        return b',"MD5OfMessageAttributes":"' + digest + b'","MessageAttributes":' + orjson.dumps(asked)


@dataclass(slots=True)
class _Parked:
    """A receive that waits for the first message."""

    receiver: Receiver
    ask: "Ask"
    timeout: TimerHandle


@dataclass(frozen=True, slots=True)
class Ask:
    """What a receive asks for: how many, hidden for how long, with which attributes."""

    limit: int
    hidden_s: float
    system: Sequence[str]
    names: Sequence[str]


class Queue:
    """The messages of one queue, and who waits for them."""

    def __init__(self, name: str, loop: AbstractEventLoop) -> None:
        self.name = name
        self.attributes: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.handovers: list[tuple[str, float]] = []
        self._loop = loop
        self._alive: dict[str, Message] = {}
        self._visible: deque[Message] = deque()
        self._reserve: Iterator[Message] = iter(())
        self._unrevealed: list[Message] = []
        self._expiries: list[tuple[float, str, Message]] = []
        self._parked: deque[_Parked] = deque()
        self._alarm: TimerHandle | None = None
        self._counts = Counter(visible=0, reserve=0, in_flight=0, delayed=0, sent=0, received=0, deleted=0)

    @property
    def visibility_timeout_s(self) -> int:
        return int(self.attributes.get("VisibilityTimeout", 30))

    def all_attributes(self) -> dict[str, str]:
        counts = self._counts
        return {"VisibilityTimeout": "30", "QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{self.name}"} | {
            **self.attributes,
            "ApproximateNumberOfMessages": str(counts["visible"] + counts["reserve"]),
            "ApproximateNumberOfMessagesNotVisible": str(counts["in_flight"]),
            "ApproximateNumberOfMessagesDelayed": str(counts["delayed"]),
        }

    def stats(self) -> dict[str, Any]:
        return {"calls": dict(self.calls), "messages": dict(self._counts), "parked": len(self._parked)}

    # ── in ──

    def put(self, message: Message, delay_s: float = 0) -> None:
        """Take a message; whoever waits hears of it at the next `wake`."""
        self._alive[message.message_id] = message
        self._counts["sent"] += 1
        if delay_s > 0:
            self._hide(message, delay_s, "delayed")
        else:
            self._show(message)

    def fill(
        self,
        *,
        template: str,
        first: int,
        count: int,
        tenants: int,
        hidden: bool = False,
        lazy: bool = False,
    ) -> None:
        """Take `count` messages made of one template: `hidden` until revealed, or made `lazy` at a receive.

        Lazy ones come after all others, and cost no memory until then.
        """

        def made() -> Iterator[Message]:
            for number in range(first, first + count):
                yield Message(events.body(number, template, tenants).encode(), sent=False)

        if lazy:
            self._reserve = chain(self._reserve, made())
            self._counts["reserve"] += count
            self.wake()
        elif hidden:
            self._unrevealed += made()
        else:
            for message in made():
                self.put(message)
            self.wake()

    def reveal(self) -> float:
        """Show what was filled hidden, as if it were sent at this moment; gives the moment in Unix time."""
        now_ms = int(time.time() * 1000)
        for message in self._unrevealed:
            message.sent_ms = now_ms
            self.put(message)
        self._unrevealed = []
        shown_at = time.time()
        self.wake()
        return shown_at

    # ── out ──

    def receive(self, ask: Ask, wait_s: float, receiver: Receiver) -> bytes | None:
        """Hand over what there is; None: nothing yet, the receiver is answered within `wait_s` seconds."""
        self._expire()
        if self._counts["visible"] or self._counts["reserve"]:
            return self._hand_over(ask)
        if wait_s <= 0:
            return b"{}"
        timeout = self._loop.call_later(wait_s, self._give_up, receiver)
        self._parked.append(_Parked(receiver, ask, timeout))
        receiver.parked_in = self
        self._set_alarm()
        return None

    def wake(self) -> None:
        """Answer those who wait, while there is something to hand over."""
        self._expire()
        while self._parked and (self._counts["visible"] or self._counts["reserve"]):
            parked = self._parked.popleft()
            parked.timeout.cancel()
            parked.receiver.parked_in = None
            parked.receiver.answer(self._hand_over(parked.ask))
        self._set_alarm()

    def forget(self, receiver: Receiver) -> None:
        """Whoever waited has left."""
        for parked in self._parked:
            if parked.receiver is receiver:
                parked.timeout.cancel()
        self._parked = deque(parked for parked in self._parked if parked.receiver is not receiver)
        receiver.parked_in = None

    def delete(self, receipt: str) -> None:
        """Delete by the newest receipt; what is gone already counts as deleted, as on AWS."""
        message = self._by_receipt(receipt)
        if message is None:
            return
        self._counts["in_flight" if message.state is State.HIDDEN else "visible"] -= 1
        self._counts["deleted"] += 1
        message.state = State.GONE
        del self._alive[message.message_id]

    def change(self, receipt: str, timeout_s: float) -> None:
        """Hide a message in flight for so long from now; 0 shows it at once."""
        message = self._by_receipt(receipt)
        if message is None or message.state is not State.HIDDEN:
            raise Refused("MessageNotInflight", "the message is not in flight")
        self._counts["in_flight"] -= 1
        self._hide(message, timeout_s, "in_flight")
        self.wake()

    def purge(self) -> None:
        """Forget every message."""
        for message in self._alive.values():
            message.state = State.GONE
        self._alive.clear()
        self._visible.clear()
        self._expiries.clear()
        self._unrevealed.clear()
        self._reserve = iter(())
        for name in ("visible", "reserve", "in_flight", "delayed"):
            self._counts[name] = 0

    def answer_all_parked(self) -> None:
        """Let nobody wait any longer."""
        while self._parked:
            self._give_up(self._parked[0].receiver)

    # ── within ──

    def _hand_over(self, ask: Ask) -> bytes:
        parts: list[bytes] = []
        while len(parts) < ask.limit and (message := self._next()) is not None:
            message.receive_count += 1
            message.receipt = f"{message.message_id}.{message.receive_count}"
            now = time.time()
            if message.receive_count == 1:
                message.first_received_ms = int(now * 1000)
                if message.sent:
                    self.handovers.append((message.message_id, now))
            self._hide(message, ask.hidden_s, "in_flight")
            parts.append(message.as_json(ask))
        self._counts["received"] += len(parts)
        return b'{"Messages":[' + b",".join(parts) + b"]}" if parts else b"{}"

    def _next(self) -> Message | None:
        while self._visible:
            message = self._visible.popleft()
            if message.state is State.VISIBLE:
                self._counts["visible"] -= 1
                return message
        made = next(self._reserve, None)
        if made is not None:
            self._counts["reserve"] -= 1
            self._counts["sent"] += 1
            self._alive[made.message_id] = made
        return made

    def _by_receipt(self, receipt: str) -> Message | None:
        """Find the message; None: it is gone. Refused: never a receipt, or an older one."""
        message_id, dot, count = receipt.partition(".")
        if not dot or not count.isdigit() or len(message_id) != ID_LENGTH:
            raise Refused("ReceiptHandleIsInvalid", "this is no receipt of this queue")
        message = self._alive.get(message_id)
        if message is not None and message.receipt != receipt:
            raise Refused("ReceiptHandleIsInvalid", "the message has been handed over again since")
        return message

    def _show(self, message: Message) -> None:
        message.state = State.VISIBLE
        self._visible.append(message)
        self._counts["visible"] += 1

    def _hide(self, message: Message, timeout_s: float, count: str) -> None:
        message.state = State.HIDDEN
        message.visible_at = self._loop.time() + timeout_s
        self._counts[count] += 1
        if len(self._expiries) > 2 * len(self._alive) + EXPIRIES_SLACK:
            self._expiries = [entry for entry in self._expiries if _stands(entry)]
            heapq.heapify(self._expiries)
        heapq.heappush(self._expiries, (message.visible_at, message.message_id, message))

    def _expire(self) -> None:
        """Show those whose time is over."""
        now = self._loop.time()
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)
            if _stands(entry):
                message = entry[2]
                self._counts["in_flight" if message.receipt else "delayed"] -= 1
                self._show(message)

    def _set_alarm(self) -> None:
        """Wake those who wait when the next hidden message shows."""
        while self._expiries and not _stands(self._expiries[0]):
            heapq.heappop(self._expiries)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._parked and self._expiries:
            self._alarm = self._loop.call_at(self._expiries[0][0], self.wake)

    def _give_up(self, receiver: Receiver) -> None:
        self.forget(receiver)
        receiver.answer(b"{}")


def _stands(expiry: tuple[float, str, Message]) -> bool:
    visible_at, _, message = expiry
    return message.state is State.HIDDEN and message.visible_at == visible_at


def _is_prefix(asked: str, name: str) -> bool:
    return asked.endswith(".*") and name.startswith(asked[:-1])


def md5_of_attributes(attributes: Mapping[str, Any]) -> str:
    """Give SQS's digest of message attributes: names in order, each part behind its length."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        attribute = attributes[name]
        kind = attribute["DataType"]
        if kind.startswith("Binary"):
            transport, value = b"\x02", b64decode(attribute["BinaryValue"])
        else:
            transport, value = b"\x01", attribute["StringValue"].encode()
        for part in (name.encode(), kind.encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update(transport + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()
