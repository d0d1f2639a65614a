"""The demo's progress, from the manifest, the tables and the queue."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from processor.database.queries import queries
from processor.devstack.stack import Stack

PLAIN_INTERVAL_S = 2.0
ACCEPTED = b'"accepted"'


@dataclass(frozen=True)
class Seen:
    """One observation: messages accepted by the queue, rows by table, and messages in the queue."""

    accepted: int
    stored: int
    duplicates: int
    rejected: int
    waiting: int

    @property
    def done(self) -> int:
        """The number of deliveries with an outcome."""
        return self.stored + self.duplicates + self.rejected


class Watch:
    """Observes manifest, tables and queue; an observation is read-only and takes a few milliseconds."""

    def __init__(self, stack: Stack, manifest: Path) -> None:
        self._stack = stack
        self._manifest = manifest
        self._offset = 0
        self._accepted = 0
        self._last: Seen | None = None
        self._moved_at = time.monotonic()

    def __enter__(self) -> Self:
        self._client = self._stack.sqs.client()
        self._connection = psycopg.connect(self._stack.database_url, autocommit=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._client.close()

    def look(self) -> Seen:
        """Return the present state. Its parts are read one after the other, so they may be slightly apart."""
        attributes = self._client.get_queue_attributes(
            QueueUrl=self._stack.queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        )["Attributes"]
        row = self._connection.execute(queries("devstack")["rows_so_far"]).fetchone()
        stored, duplicates, rejected = row if row is not None else (0, 0, 0)
        waiting = sum(int(count) for count in attributes.values())
        seen = Seen(self._count_accepted(), stored, duplicates, rejected, waiting)
        if seen != self._last:
            self._last, self._moved_at = seen, time.monotonic()
        return seen

    def still_s(self) -> float:
        """Return the seconds since the last change between two observations."""
        return time.monotonic() - self._moved_at

    def _count_accepted(self) -> int:
        """Count the manifest's accepted messages, reading only new lines."""
        if self._manifest.exists():
            with self._manifest.open("rb") as manifest:
                manifest.seek(self._offset)
                text = manifest.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._accepted += whole.count(ACCEPTED)
        return self._accepted


class DemoProgress:
    """Two progress bars on a terminal, otherwise a plain line every two seconds."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._console = Console(highlight=False)
        self._said: Seen | None = None
        self._said_at = 0.0
        self._bars = Bars(
            TextColumn("  {task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            # No thread of its own: a signal must find the main thread alone.
            auto_refresh=False,
            console=self._console,
        )
        self._sent = self._bars.add_task("sent", total=events)
        self._done = self._bars.add_task("processed", total=events)
        self._live = (
            Live(self._bars, console=self._console, auto_refresh=False) if sys.stdout.isatty() else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, seen: Seen) -> None:
        """Show an observation; without a terminal, every two seconds and at the end."""
        # Duplicates are sent on top of the events, so the total is known for certain only at the end.
        total = max(self._events, seen.accepted)
        note = f"{seen.stored:,} stored, {seen.duplicates:,} duplicates, {seen.rejected:,} rejected"
        if self._live is not None:
            self._bars.update(self._sent, completed=seen.accepted, total=total)
            self._bars.update(self._done, completed=seen.done, total=total)
            self._live.update(
                Group(self._bars, Text(f"  {note}, {seen.waiting:,} in the queue")), refresh=True
            )
            return
        ended = seen.accepted >= self._events and seen.done >= seen.accepted and seen.waiting == 0
        if seen != self._said and (ended or time.monotonic() - self._said_at >= PLAIN_INTERVAL_S):
            self._said, self._said_at = seen, time.monotonic()
            sys.stdout.write(f"  sent {seen.accepted:,}: {note}, {seen.waiting:,} in the queue\n")
            sys.stdout.flush()
