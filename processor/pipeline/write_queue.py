"""Queue verdicts for the writers, in batches whose size follows the load.

receivers ─▶ put ─▶ pieces of one receive at most ─▶ take: all that is queued ─▶ in_turn ─▶ writers

A free writer takes all that is queued at once, so that no verdict waits for a batch to fill. Each receive of
an ordered queue is one piece, so that one writer saves it in order.
"""

import queue
import time
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from processor.model import Delivery, Verdict
from processor.store.save_order import SaveStage, parts_in_order

Item: TypeAlias = Verdict | Delivery
"""A verdict, or a suspect delivery that has none yet."""


class WriteQueue:
    """A queue of pieces that returns batches, bounded in items and in bytes of bodies. Thread-safe.

    A batch exceeds `bytes_max` only if a single body does, or a group that was put together; `in_turn` splits
    the latter. A batch that is not full waits `linger_s` for more. A piece has up to `piece_size_max` items,
    the size of one receive.
    """

    def __init__(self, *, size_max: int, bytes_max: int, linger_s: float, piece_size_max: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        self._piece_size_max = min(piece_size_max, size_max)
        # A writer does not know the size of the next piece, but any two pieces fit into a batch.
        self._piece_bytes_max = bytes_max // 2
        self._waiting: queue.SimpleQueue[tuple[list[Item], int] | None] = queue.SimpleQueue()

    def put(self, items: Sequence[Item], *, together: bool = False) -> None:
        """Queue items in this order, split into pieces that fit into a batch, or `together` as one piece."""
        if together:
            self._waiting.put((list(items), sum(_size_bytes(item) for item in items)))
            return
        for piece in _pieces(items, self._piece_size_max, self._piece_bytes_max):
            self._waiting.put(piece)

    def end(self) -> None:
        """Queue an end mark behind all items. It ends one writer."""
        self._waiting.put(None)

    def take(self, wait_s: float | None = None) -> tuple[list[Item], bool]:
        """Wait for an item and take up to a batch; also returns whether an end mark was reached.

        The batch is empty if nothing was queued within `wait_s` seconds.
        """
        try:
            first = self._waiting.get(timeout=wait_s)
        except queue.Empty:
            return [], False
        if first is None:
            return [], True
        items, size_bytes = first
        linger_until = time.monotonic() + self._linger_s
        while (
            len(items) + self._piece_size_max <= self._size_max
            and size_bytes + self._piece_bytes_max <= self._bytes_max
        ):
            try:
                wait_s = linger_until - time.monotonic()
                more = self._waiting.get(timeout=wait_s) if wait_s > 0 else self._waiting.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return items, True
            items += more[0]
            size_bytes += more[1]
        return items, False

    def in_turn(self, items: list[Item]) -> list[list[Item]]:
        """Split a batch into parts that are saved one after the other, each within the bounds.

        Suspects are parts of their own and come last, ordered by receive count. The order within a group is
        kept.
        """
        if items and _delivery(items[0]).group is not None:
            return self._group_by_group(items)
        suspects = [item for item in items if isinstance(item, Delivery)]
        if not suspects:
            return [items] if items else []
        # A delivery that kills processes is redelivered sooner than others, so its receive count is higher.
        suspects.sort(key=lambda suspect: suspect.receive_count)
        ordinary: list[Item] = [item for item in items if not isinstance(item, Delivery)]
        alone: list[list[Item]] = [[suspect] for suspect in suspects]
        return [ordinary, *alone] if ordinary else alone

    def _group_by_group(self, items: list[Item]) -> list[list[Item]]:
        parts = parts_in_order(
            [SaveStage.ALONE if isinstance(item, Delivery) else SaveStage.FIRST for item in items],
            lambda position: _delivery(items[position]).group,
        )
        return [
            piece
            for part in parts
            for piece, _ in _pieces([items[position] for position in part], self._size_max, self._bytes_max)
        ]


def _pieces(items: Sequence[Item], size_max: int, bytes_max: int) -> Iterator[tuple[list[Item], int]]:
    """Split items into pieces within both bounds, each with its number of bytes."""
    piece: list[Item] = []
    piece_bytes = 0
    for item in items:
        size_bytes = _size_bytes(item)
        if piece and (len(piece) == size_max or piece_bytes + size_bytes > bytes_max):
            yield piece, piece_bytes
            piece, piece_bytes = [], 0
        piece.append(item)
        piece_bytes += size_bytes
    if piece:
        yield piece, piece_bytes


def _delivery(item: Item) -> Delivery:
    return item if isinstance(item, Delivery) else item.delivery


def _size_bytes(item: Item) -> int:
    return len(_delivery(item).body)
