"""What waits for a writer: batches that grow with the load by themselves.

receivers ─▶ put ─▶ pieces, of one receive at the most ─▶ take, whatever waits ─▶ in_turn ─▶ writers

A writer takes what there is as soon as it is free, so nobody waits for a batch to fill. What one receive of
an ordered queue brought is one piece, so that one writer saves it, in its order.
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
    """Pieces in, batches out, bounded in number and in bytes of bodies. Safe to share between threads.

    A batch exceeds `bytes_max` only where a single body does, or what was put together; `in_turn` parts that.
    `linger_s` is waited for more when a batch is not full. Pieces have up to `piece_size_max`, as many as one
    receive brings.
    """

    def __init__(self, *, size_max: int, bytes_max: int, linger_s: float, piece_size_max: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        self._piece_size_max = min(piece_size_max, size_max)
        # Whoever takes does not know how large the next piece is, but that two of them fit.
        self._piece_bytes_max = bytes_max // 2
        self._waiting: queue.SimpleQueue[tuple[list[Item], int] | None] = queue.SimpleQueue()

    def put(self, items: Sequence[Item], *, together: bool = False) -> None:
        """Let items wait, in this order, in pieces that fit into a batch, or `together` in one."""
        if together:
            self._waiting.put((list(items), sum(_size_bytes(item) for item in items)))
            return
        for piece in _pieces(items, self._piece_size_max, self._piece_bytes_max):
            self._waiting.put(piece)

    def end(self) -> None:
        """Tell one of those who take, once all that waits is taken, that nothing will come any more."""
        self._waiting.put(None)

    def take(self, wait_s: float | None = None) -> tuple[list[Item], bool]:
        """Wait for something, and take whatever waits, up to a batch; says whether that was the end.

        What is taken is empty, too, where nothing has come for `wait_s`.
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
        """Part what was taken into what is to be saved together, one after the other and within the bounds.

        Suspects come alone and late, those last that have come most often; but nothing comes before what is
        earlier in its group.
        """
        if items and _delivery(items[0]).group is not None:
            return self._group_by_group(items)
        suspects = [item for item in items if isinstance(item, Delivery)]
        if not suspects:
            return [items] if items else []
        # What killed a process came back soon and alone, and so has come more often than the others.
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
    """Cut items into pieces within both bounds, and say of each how many bytes of bodies it has."""
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
