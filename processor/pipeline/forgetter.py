"""Delete the notes of settled deliveries, in a background thread, several times a second.

source ─▶ acknowledgement confirmed ─▶ [queue] ─▶ SettledNoteCleaner (a thread) ─▶ store
"""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from processor.errors import Stopped

_EVERY_S = 0.1
_STOP_S = 3.0
"""The time limit for the last deletion at a stop. Remaining notes stay in the database."""


class NoteStore(Protocol):
    """The store, as the cleaner uses it."""

    def forget_settled(self, queue: str, delivery_ids: Sequence[str]) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SettledNoteCleaner:
    """Deletes notes of one queue. The first call of `tell` starts its thread and opens its store."""

    def __init__(self, open_store: Callable[[], NoteStore], queue_name: str) -> None:
        self._open_store = open_store
        self._queue_name = queue_name
        self._waiting: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, delivery_ids: Sequence[str]) -> None:
        """Queue deliveries whose notes can be deleted. Does not block. Only one thread may call it."""
        self._waiting.put(delivery_ids)
        if self._thread is None:
            self._thread = threading.Thread(target=self._forget, name="forgetter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Delete the remaining notes and end the thread."""
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
            # The database is unavailable and the run is over.
            pass
        finally:
            store.close()

    def _take(self) -> list[str]:
        delivery_ids: list[str] = []
        with suppress(queue.Empty):
            while True:
                delivery_ids += self._waiting.get_nowait()
        return delivery_ids
