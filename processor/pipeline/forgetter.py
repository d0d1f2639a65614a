"""What forgets the notes of settled deliveries, beside the writers and some times a second.

source ─▶ told: arrived ─▶ [waiting] ─▶ SettledNoteCleaner (a thread) ─▶ store
"""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from processor.errors import Stopped

_EVERY_S = 0.1
_STOP_S = 3.0
"""For how long the end waits for the database; what is not forgotten by then stays noted."""


class NoteStore(Protocol):
    """What is asked of the database."""

    def forget_settled(self, queue: str, delivery_ids: Sequence[str]) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SettledNoteCleaner:
    """Forgets deliveries of one queue. Its thread and its store begin with the first that it is told of."""

    def __init__(self, open_store: Callable[[], NoteStore], queue_name: str) -> None:
        self._open_store = open_store
        self._queue_name = queue_name
        self._waiting: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, delivery_ids: Sequence[str]) -> None:
        """Take deliveries to be forgotten soon. It does not wait; for one thread."""
        self._waiting.put(delivery_ids)
        if self._thread is None:
            self._thread = threading.Thread(target=self._forget, name="forgetter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Forget what is left, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _forget(self) -> None:
        store = self._open_store()
        last = False
        try:
            while not last:
                last = self._stop.wait(_EVERY_S)
                if delivery_ids := self._take():
                    store.forget_settled(self._queue_name, delivery_ids)
        except Stopped:
            # The database is away, and nobody waits for it any more.
            pass
        finally:
            store.close()

    def _take(self) -> list[str]:
        delivery_ids: list[str] = []
        with suppress(queue.Empty):
            while True:
                delivery_ids += self._waiting.get_nowait()
        return delivery_ids
