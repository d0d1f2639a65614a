"""What waits for a writer: batches that grow with the load by themselves.

receivers ─▶ put ─▶ pieces, of one receive at the most ─▶ take, whatever waits ─▶ writers

A writer takes what there is as soon as it is free, so nobody waits for a batch to fill.
"""

import queue
import time
from collections.abc import Sequence
from typing import TypeAlias

from processor.model import Delivery, Verdict

Item: TypeAlias = Verdict | Delivery
"""A verdict, or a suspect delivery that has none yet."""

_PIECE_SIZE_MAX = 10
"""As many as one receive brings."""


class Batches:
    """Pieces in, batches out, bounded in number and in bytes of bodies. Safe to share between threads.

    A batch exceeds `bytes_max` only where a single body does. `linger_s` is waited for more when a batch is
    not full.
    """

    def __init__(self, *, size_max: int, bytes_max: int, linger_s: float) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        self._piece_size_max = min(_PIECE_SIZE_MAX, size_max)
        # Whoever takes does not know how large the next piece is, but that two of them fit.
        self._piece_bytes_max = bytes_max // 2
        self._waiting: queue.SimpleQueue[tuple[list[Item], int] | None] = queue.SimpleQueue()

    def put(self, items: Sequence[Item]) -> None:
        """Let items wait, in this order, in pieces that fit into a batch."""
        piece: list[Item] = []
        piece_bytes = 0
        for item in items:
            size_bytes = len((item if isinstance(item, Delivery) else item.delivery).body)
            if piece and (
                len(piece) == self._piece_size_max or piece_bytes + size_bytes > self._piece_bytes_max
            ):
                self._waiting.put((piece, piece_bytes))
                piece, piece_bytes = [], 0
            piece.append(item)
            piece_bytes += size_bytes
        if piece:
            self._waiting.put((piece, piece_bytes))

    def end(self) -> None:
        """Tell one of those who take, once all that waits is taken, that nothing will come any more."""
        self._waiting.put(None)

    def take(self) -> tuple[list[Item], bool]:
        """Wait for something, and take whatever waits, up to a batch; says whether that was the end."""
        first = self._waiting.get()
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


def alone_where_suspect(verdicts: Sequence[Verdict]) -> list[list[int]]:
    """Group positions for separate transactions: the ordinary ones together and first, each suspect alone."""
    suspect = [verdict.delivery.suspect for verdict in verdicts]
    ordinary = [position for position, alone in enumerate(suspect) if not alone]
    return ([ordinary] if ordinary else []) + [[position] for position, alone in enumerate(suspect) if alone]
