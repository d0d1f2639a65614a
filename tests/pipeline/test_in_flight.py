"""How much may be received: bounded in number and in bytes, for all who ask at once."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from processor.model import Delivery
from processor.pipeline.in_flight import InFlight
from tests.builders import a_delivery


def held(size_max: int = 100, bytes_max: int = 1000) -> InFlight:
    return InFlight(size_max=size_max, bytes_max=bytes_max, extend_after_s=60, call_size=10)


def bodies(count: int, size_bytes: int) -> list[Delivery]:
    return [a_delivery(b"x" * size_bytes, delivery_id=str(number)) for number in range(count)]


def asked(buffer: InFlight, limit: int = 10) -> int:
    with buffer.room(limit, 0) as granted:
        return granted


@pytest.fixture
def asking() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_as_many_may_come_as_are_asked_for_while_there_is_room() -> None:
    assert asked(held()) == 10


def test_room_is_kept_for_who_has_asked_until_the_answer_is_there(asking: ExitStack) -> None:
    buffer = held(size_max=15)

    granted = [asking.enter_context(buffer.room(10, 0)) for _ in range(3)]

    assert granted == [10, 5, 0]
    asking.close()
    assert asked(buffer) == 10


def test_what_is_held_takes_its_room_until_it_is_dropped() -> None:
    buffer = held(size_max=12)
    some = bodies(10, 1)
    buffer.add(some)

    assert asked(buffer) == 2
    buffer.drop(some)
    assert asked(buffer) == 10


def test_after_large_bodies_fewer_are_asked_for_at_once() -> None:
    buffer = held(bytes_max=1000)
    large = bodies(10, 200)
    buffer.add(large)
    assert asked(buffer) == 0
    buffer.drop(large)

    assert asked(buffer) == 5


def test_large_bodies_are_forgotten_with_time() -> None:
    buffer = held(bytes_max=1000)
    for size_bytes in (200, *[1] * 20):
        some = bodies(1, size_bytes)
        buffer.add(some)
        buffer.drop(some)

    assert asked(buffer) == 10


def test_one_body_may_come_however_large_it_will_be() -> None:
    buffer = held(bytes_max=1000)
    huge = bodies(1, 5000)
    buffer.add(huge)
    assert asked(buffer) == 0
    buffer.drop(huge)

    assert asked(buffer) == 1


def test_only_one_asks_for_a_body_that_large(asking: ExitStack) -> None:
    buffer = held(bytes_max=1000)
    huge = bodies(1, 5000)
    buffer.add(huge)
    buffer.drop(huge)

    granted = [asking.enter_context(buffer.room(10, 0)) for _ in range(2)]

    assert granted == [1, 0]


def test_nothing_more_is_received_while_extensions_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a queue that is slow for a while brings all that is held again, and again."""
    now = [0.0]
    monkeypatch.setattr("processor.pipeline.in_flight.time.monotonic", lambda: now[0])
    buffer = held()
    buffer.add(bodies(20, 1))
    granted: list[int] = []

    def extend_after(wait_s: float, call_s: float) -> None:
        def extend(_chunk: Sequence[Delivery]) -> None:
            now[0] += call_s

        now[0] += wait_s
        buffer.keep(extend, hold_s_max=10_000, stop=threading.Event())
        granted.append(asked(buffer))

    for wait_s, call_s in ((60, 1), (60, 40), (0, 1)):
        extend_after(wait_s, call_s)

    assert granted == [10, 0, 10]
