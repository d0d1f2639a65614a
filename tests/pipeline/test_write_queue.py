"""WriteQueue are what waits, whole and in order, and never more than one may hold."""

import threading
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from processor.model import Delivery
from processor.pipeline.write_queue import Item, WriteQueue
from processor.validation.validator import Schemas
from tests.builders import a_delivery


def deliveries(count: int, size_bytes: int = 10) -> list[Delivery]:
    return [a_delivery(b"x" * size_bytes, delivery_id=str(number)) for number in range(count)]


def batches(size_max: int = 500, bytes_max: int = 1000, linger_s: float = 0.0) -> WriteQueue:
    return WriteQueue(size_max=size_max, bytes_max=bytes_max, linger_s=linger_s, piece_size_max=10)


def ids(items: Sequence[object]) -> list[str]:
    return [item.delivery_id for item in items if isinstance(item, Delivery)]


def drained(waiting: WriteQueue) -> list[list[str]]:
    """Take until the end."""
    waiting.end()
    taken = []
    while True:
        items, last = waiting.take()
        taken.append(ids(items))
        if last:
            return taken


def test_whatever_waits_is_taken_at_once() -> None:
    waiting = batches()
    for _ in range(3):
        waiting.put(deliveries(2))

    assert waiting.take() == (deliveries(2) * 3, False)


@pytest.mark.parametrize("size_max", [1, 3, 10, 25])
def test_no_batch_is_larger_than_it_may_be(size_max: int) -> None:
    waiting = batches(size_max=size_max)
    for _ in range(5):
        waiting.put(deliveries(10))

    taken = drained(waiting)

    assert max(len(batch) for batch in taken) <= size_max
    assert [name for batch in taken for name in batch] == ids(deliveries(10)) * 5


@pytest.mark.parametrize("size_bytes", [50, 100, 400, 499])
def test_no_batch_has_more_bytes_than_it_may_have(size_bytes: int) -> None:
    waiting = batches(bytes_max=1000)
    for _ in range(5):
        waiting.put(deliveries(10, size_bytes))

    taken = drained(waiting)

    assert max(len(batch) for batch in taken) * size_bytes <= 1000
    assert [name for batch in taken for name in batch] == ids(deliveries(10)) * 5


def test_a_body_larger_than_a_batch_may_be_comes_all_the_same() -> None:
    waiting = batches(bytes_max=1000)
    waiting.put(deliveries(3, 5000))

    assert [batch for batch in drained(waiting) if batch] == [["0"], ["1"], ["2"]]


def test_the_end_comes_after_all_that_waits_and_to_each_who_takes() -> None:
    waiting = batches()
    waiting.put(deliveries(1))
    waiting.end()
    waiting.end()

    assert waiting.take() == (deliveries(1), True)
    assert waiting.take() == ([], True)


def test_a_batch_that_lingers_takes_what_comes_meanwhile() -> None:
    waiting = batches(linger_s=20)
    waiting.put(deliveries(1))

    def more() -> None:
        waiting.put(deliveries(1))
        waiting.end()

    threading.Timer(0.05, more).start()

    assert waiting.take() == (deliveries(1) * 2, True)


# ── whose turn it is ──────────────────────────────────────────────────────────────────────────────────


def an_item(name: str, *, group: str | None = None, receive_count: int = 1, size_bytes: int = 10) -> Item:
    """A verdict, or a delivery that has none yet because it is suspect."""
    delivery = replace(
        a_delivery(b"x" * size_bytes, delivery_id=name, receive_count=receive_count), group=group
    )
    schemas = Schemas(body_bytes_max=10_000, json_depth_max=4)
    return delivery if delivery.suspect else schemas.validate(delivery)


def names(parts: list[list[Item]]) -> list[list[str]]:
    return [
        [(item if isinstance(item, Delivery) else item.delivery).delivery_id for item in part]
        for part in parts
    ]


def test_what_is_not_suspect_is_saved_together() -> None:
    items = [an_item("a"), an_item("b")]

    assert batches().in_turn(items) == [items]
    assert batches().in_turn([]) == []


def test_suspects_come_alone_and_late_and_those_last_that_came_most_often() -> None:
    items = [
        an_item("often", receive_count=5),
        an_item("a"),
        an_item("less often", receive_count=3),
        an_item("b", receive_count=2),
    ]

    assert names(batches().in_turn(items)) == [["a", "b"], ["less often"], ["often"]]


def test_what_is_later_in_the_group_of_a_suspect_waits_for_it() -> None:
    items = [
        an_item("a1", group="a", receive_count=5),
        an_item("b1", group="b"),
        an_item("a2", group="a", receive_count=3),
        an_item("a3", group="a"),
        an_item("b2", group="b"),
        an_item("a4", group="a"),
    ]

    assert names(batches().in_turn(items)) == [["b1", "b2"], ["a1"], ["a2"], ["a3", "a4"]]


def test_what_is_put_together_is_taken_together_and_parted_within_the_bounds() -> None:
    waiting = batches(size_max=3, bytes_max=1000)
    items = [an_item(str(number), group="a", size_bytes=400) for number in range(5)]

    waiting.put(items, together=True)

    taken, _ = waiting.take()
    assert taken == items
    assert names(waiting.in_turn(taken)) == [["0", "1"], ["2", "3"], ["4"]]
