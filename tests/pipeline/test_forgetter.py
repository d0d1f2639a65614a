"""What was acknowledged is forgotten soon, at the latest at the end; without notes nothing is opened."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from processor.errors import Stopped
from processor.pipeline.forgetter import SettledNoteCleaner
from tests.rig import wait_until


@dataclass
class Notes:
    """A store that remembers what it was told to forget."""

    away: bool = False
    opened: int = 0
    closed: int = 0
    forgotten: list[tuple[str, str]] = field(default_factory=list)

    def open(self) -> "Notes":
        self.opened += 1
        return self

    def forget_settled(self, queue: str, delivery_ids: Sequence[str]) -> None:
        if self.away:
            raise Stopped("told to stop while waiting for the database")
        self.forgotten += [(queue, delivery_id) for delivery_id in delivery_ids]

    def close(self) -> None:
        self.closed += 1


def test_what_it_is_told_of_is_forgotten_while_it_runs() -> None:
    notes = Notes()
    forgetter = SettledNoteCleaner(notes.open, "events")

    forgetter.tell(["a", "b"])
    forgetter.tell(["c"])

    wait_until(lambda: len(notes.forgotten) == 3, "all are forgotten")
    forgetter.stop()
    assert notes.forgotten == [("events", "a"), ("events", "b"), ("events", "c")]
    assert (notes.opened, notes.closed) == (1, 1)


def test_what_it_was_told_of_last_is_forgotten_before_it_ends() -> None:
    notes = Notes()
    forgetter = SettledNoteCleaner(notes.open, "events")

    for place in range(1000):
        forgetter.tell([str(place)])
    forgetter.stop()

    assert len(notes.forgotten) == 1000
    assert notes.closed == 1


def test_nothing_is_opened_where_nothing_is_told() -> None:
    notes = Notes()

    SettledNoteCleaner(notes.open, "events").stop()

    assert notes.opened == 0


def test_it_ends_where_nobody_waits_for_the_database_any_more() -> None:
    notes = Notes(away=True)
    forgetter = SettledNoteCleaner(notes.open, "events")

    forgetter.tell(["a"])
    forgetter.stop()

    assert notes.closed == 1
    assert "forgetter" not in [thread.name for thread in threading.enumerate()]
