"""The faults of a call to SQS: lost, refused, late, partial, truncated, altered, repeated."""

import json
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, TypeAlias

from tests.chaos.traffic.http_proxy import Answer, Call, Forward, Interceptor, refusal

Message: TypeAlias = dict[str, Any]

RECEIVE, DELETE, EXTEND = "ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"
BATCHES = (DELETE, EXTEND)

OUTDATED = "ReceiptHandleIsInvalid"

_PORTAL = b"<html><body>Please log in to this network.</body></html>"
_IDS = re.compile(rb'"MessageId": ?"[^"]*"')
_RECEIPT = re.compile(rb'"ReceiptHandle": ?"([^"]+)"')
_NUMBERS = re.compile(rb'"(?:SentTimestamp|ApproximateReceiveCount)": ?"([0-9]+)"')
_BODY_DIGIT = re.compile(rb'"Body": ?"(?:[^"\\]|\\.)*?([0-9])')
_TENANT = re.compile(rb'"tenant_id": ?\{[^}]*"StringValue": ?"([^"]+)"')


@dataclass
class Sometimes:
    """Lets a fault meet a share of the calls, of some operations only; counts those it met, by operation."""

    fault: Interceptor
    chance: random.Random
    share: float = 1.0
    only: Collection[str] = ()
    met: Counter[str] = field(default_factory=Counter)

    def __call__(self, call: Call, forward: Forward) -> Answer | None:
        if (self.only and call.operation not in self.only) or self.chance.random() >= self.share:
            return forward(call.fields)
        self.met[call.operation] += 1
        return self.fault(call, forward)


def lose_reply(call: Call, forward: Forward) -> Answer | None:
    """Let the server do it, and hang up."""
    forward(call.fields)
    return None


def lose_request(call: Call, forward: Forward) -> Answer | None:
    """Hang up before the server hears of it."""
    return None


def refuse(code: str, status: int = 400) -> Interceptor:
    """Refuse every call by this code."""
    return lambda _call, _forward: refusal(code, status)


def delay(chance: random.Random, low_s: float, high_s: float) -> Interceptor:
    """Let the server do it, and bring its answer late."""

    def late(call: Call, forward: Forward) -> Answer | None:
        answer = forward(call.fields)
        time.sleep(chance.uniform(low_s, high_s))
        return answer

    return late


def be_silent(until: threading.Event) -> Interceptor:
    """Take calls and say nothing until the event is set; then hang up."""

    def silent(call: Call, forward: Forward) -> Answer | None:
        until.wait()
        return None

    return silent


def fail_some(chance: random.Random, share: float) -> Interceptor:
    """Leave some entries of a batch undone and name them in `Failed`, half of them as the caller's fault."""

    def partly(call: Call, forward: Forward) -> Answer | None:
        entries = call.fields["Entries"]
        spared = [entry for entry in entries if chance.random() >= share]
        failed = [
            {"Id": entry["Id"], "Code": "InternalError", "SenderFault": chance.random() < 0.5}
            for entry in entries
            if entry not in spared
        ]
        return _with_failed(spared, failed, call, forward)

    return partly


def _with_failed(
    entries: list[Message], failed: list[Message], call: Call, forward: Forward
) -> Answer | None:
    """Pass a batch on with these entries alone, and add what failed to the answer."""
    answer = forward(call.fields | {"Entries": entries}) if entries else Answer(HTTPStatus.OK, b"{}")
    if answer.status != HTTPStatus.OK:
        return answer
    document = answer.document
    document["Failed"] = [*document.get("Failed", []), *failed]
    return replace(answer, body=json.dumps(document).encode())


def truncate(chance: random.Random) -> Interceptor:
    """Cut an answer short, lie about its length, leave it out, or give a page of HTML in its place."""

    def cut(call: Call, forward: Forward) -> Answer | None:
        answer = forward(call.fields)
        size = len(answer.body)
        place = chance.randrange(max(1, size))
        return chance.choice(
            [
                replace(answer, cut_at=place),
                replace(answer, claimed=size + chance.randint(1, 100)),
                replace(answer, claimed=place),
                replace(answer, body=answer.body[:place]),
                replace(answer, body=b""),
                Answer(HTTPStatus.OK, _PORTAL),
            ]
        )

    return cut


def alter(chance: random.Random) -> Interceptor:
    """Alter an answer: a bit anywhere, a receipt, a number, a digit of a body, or the tenant beside a body.

    The message's id is spared: nothing that SQS sends would tell.
    """

    def altered(call: Call, forward: Forward) -> Answer | None:
        answer = forward(call.fields)
        pattern = chance.choice([None, None, _RECEIPT, _NUMBERS, _BODY_DIGIT, _BODY_DIGIT, _TENANT])
        body = _flip_a_bit(chance, answer.body) if pattern is None else None
        if pattern is not None:
            spots = [match.span(1) for match in pattern.finditer(answer.body)]
            body = _replace(chance, answer.body, chance.choice(spots)) if spots else answer.body
        assert body is not None
        return replace(answer, body=body)

    return altered


def _flip_a_bit(chance: random.Random, body: bytes) -> bytes:
    spared = [match.span() for match in _IDS.finditer(body)]
    places = [at for at in range(len(body)) if not any(start <= at < end for start, end in spared)]
    if not places:
        return body
    at = chance.choice(places)
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def _replace(chance: random.Random, body: bytes, span: tuple[int, int]) -> bytes:
    """Put another letter, or another digit, in the place of one."""
    at = chance.randrange(*span)
    kind = b"0123456789" if chr(body[at]).isdigit() and chance.random() < 0.8 else b"abcdefghx"
    other = chance.choice([each for each in kind if each != body[at]])
    return body[:at] + bytes([other]) + body[at + 1 :]


class Copies:
    """Hands every message to whoever asks next as well, `times` in all, while the first is at work on it."""

    def __init__(self, times: int) -> None:
        self.copied = 0
        self._times = times
        self._waiting: deque[Message] = deque()
        self._lock = threading.Lock()

    def __call__(self, call: Call, forward: Forward) -> Answer | None:
        if call.operation != RECEIVE:
            return forward(call.fields)
        with self._lock:
            limit = call.fields["MaxNumberOfMessages"]
            copies = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if copies:
            return _answer_of(copies)
        answer = forward(call.fields)
        if answer.status == HTTPStatus.OK:
            messages = answer.document.get("Messages", [])
            with self._lock:
                self._waiting.extend(messages * (self._times - 1))
                self.copied += len(messages) * (self._times - 1)
        return answer


class Late:
    """Hands messages over once more, some time after they were deleted, with another receipt and count.

    `strict`: deletes of what came late are answered as of an outdated receipt, else as if all were well.
    """

    def __init__(self, chance: random.Random, *, after_s: float, strict: bool) -> None:
        self.waiting_for_delete: set[str] = set()
        self.handed_over = 0
        self._chance = chance
        self._after_s = after_s
        self._strict = strict
        self._by_receipt: dict[str, Message] = {}
        self._due: deque[tuple[float, Message]] = deque()
        self._lock = threading.Lock()

    def __call__(self, call: Call, forward: Forward) -> Answer | None:
        if call.operation == RECEIVE:
            return self._receive(call, forward)
        return self._batch(call, forward) if call.operation in BATCHES else forward(call.fields)

    def _receive(self, call: Call, forward: Forward) -> Answer | None:
        late = self._take(call.fields["MaxNumberOfMessages"])
        if late:
            return _answer_of(late)
        answer = forward(call.fields)
        if answer.status == HTTPStatus.OK:
            with self._lock:
                for message in answer.document.get("Messages", []):
                    self._by_receipt[message["ReceiptHandle"]] = message
        return answer

    def _take(self, limit: int) -> list[Message]:
        now = time.monotonic()
        taken: list[Message] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(taken) < limit:
                message = self._due.popleft()[1]
                receipt = f"late-{self.handed_over}"
                self.handed_over += 1
                self.waiting_for_delete.add(receipt)
                count = int(message["Attributes"]["ApproximateReceiveCount"]) + 1
                taken.append(
                    message
                    | {
                        "ReceiptHandle": receipt,
                        "Attributes": message["Attributes"] | {"ApproximateReceiveCount": str(count)},
                    }
                )
        return taken

    def _batch(self, call: Call, forward: Forward) -> Answer | None:
        ours = [entry for entry in call.fields["Entries"] if entry["ReceiptHandle"].startswith("late-")]
        others = [entry for entry in call.fields["Entries"] if entry not in ours]
        if call.operation == DELETE:
            with self._lock:
                self.waiting_for_delete -= {entry["ReceiptHandle"] for entry in ours}
                due_at = time.monotonic() + self._after_s
                for entry in others:
                    message = self._by_receipt.pop(entry["ReceiptHandle"], None)
                    if message is not None:
                        self._due.append((due_at, message))
        if not ours:
            return forward(call.fields)
        failed = [{"Id": entry["Id"], "Code": OUTDATED, "SenderFault": True} for entry in ours]
        return _with_failed(others, failed if self._strict else [], call, forward)


def _answer_of(messages: list[Message]) -> Answer:
    return Answer(HTTPStatus.OK, json.dumps({"Messages": messages}).encode())
