"""A partition step by step: in which order it is handed over, and what the group's books say."""

import json
from datetime import UTC, datetime

import pytest

from processor.sources.kafka.partitions import Mark, Partition, Record
from processor.wire.bounds import COUNT_MAX

NOW = datetime.now(UTC)


def a_partition(*offsets: int, mark: Mark | None = None, announced: bool = True) -> Partition:
    """A partition with these records buffered, whose books said `mark` and say what has to be said."""
    partition = Partition(0, 1)
    partition.load(mark)
    for offset in offsets:
        partition.add(Record(offset, f"0-{offset}-0", b"{}", NOW, {}))
    if announced:
        announce(partition)
    return partition


def announce(partition: Partition) -> Mark | None:
    mark = partition.announcement()
    if mark is not None:
        partition.wrote(mark)
    return mark


def taken(partition: Partition, limit: int = 10) -> list[tuple[int, int]]:
    """Hand over; each with its receive count."""
    if not partition.ready:
        return []
    return [(record.offset, partition.receive_count(record)) for record in partition.take(limit)]


def after_a_crash(partition: Partition, *offsets: int) -> Partition:
    """The partition as the next process finds it: what the books say is all that is left of the last one."""
    assert partition._written is not None
    mark = Mark.read(partition._written.offset, partition._written.metadata)
    return a_partition(*[offset for offset in offsets if offset >= mark.offset], mark=mark, announced=False)


def test_nothing_more_is_handed_over_until_all_that_was_is_settled() -> None:
    partition = a_partition(5, 6, 7)

    assert taken(partition, 2) == [(5, 1), (6, 1)]
    assert taken(partition) == []
    partition.settle(6)
    assert taken(partition) == []
    partition.settle(5)

    assert taken(partition) == [(7, 1)]


def test_the_offset_passes_what_is_done_from_the_front_on_and_no_gap() -> None:
    """Offsets have holes: what was compacted away, and the marks of transactions."""
    partition = a_partition(5, 9, 12, 20)
    taken(partition)

    partition.settle(9)
    partition.settle(12)
    assert partition.progress() is None
    partition.settle(5)

    assert partition.progress() == Mark(13, 1)


def test_the_offset_passes_the_end_of_what_nobody_is_handed() -> None:
    partition = a_partition(5)
    taken(partition)
    partition.reached_end(9)
    partition.settle(5)
    assert partition.progress() == Mark(6, 1)

    partition.reached_end(9)

    assert partition.progress() == Mark(9, 1)


@pytest.mark.parametrize("mark", [None, Mark(5, 0), Mark(5, 2, 8)])
def test_the_offset_passes_the_end_where_nothing_was_handed_over_at_all(mark: Mark | None) -> None:
    """Of transactions that were given up only their marks are there: the lag would never be 0."""
    partition = a_partition(mark=mark)
    assert partition.progress() is None

    partition.reached_end(9)

    assert partition.progress() == Mark(9, 0)
    partition.wrote(Mark(9, 0))
    assert partition.progress() is None
    partition.add(Record(9, "0-9-0", b"{}", NOW, {}))
    assert announce(partition) == Mark(9, 1)
    assert taken(partition) == [(9, 1)]


def test_an_empty_partition_has_nothing_to_be_written() -> None:
    partition = a_partition()

    partition.reached_end(0)

    assert partition.progress() is None


def test_what_is_released_comes_first_again_and_what_was_done_meanwhile_not_at_all() -> None:
    partition = a_partition(1, 2, 3, 4)
    taken(partition, 3)
    for offset in (3, 1, 2):
        partition.release(offset, 1)
    partition.release(2, 1)

    partition.settle(2)

    assert taken(partition) == [(1, 2), (3, 2), (4, 1)]
    for offset in (1, 3, 4):
        partition.settle(offset)
    assert partition.progress() == Mark(5, 1)


def test_an_older_hand_over_does_not_release() -> None:
    partition = a_partition(1)
    taken(partition)
    partition.release(1, 1)
    taken(partition)

    partition.release(1, 1)

    assert taken(partition) == []


def test_settling_twice_or_what_was_never_handed_over_is_nothing() -> None:
    partition = a_partition(1, 2)
    taken(partition, 1)

    assert [partition.settle(offset) for offset in (1, 1, 2, 99)] == [True, False, False, False]


def test_nothing_is_handed_over_before_the_books_say_that_it_will_be() -> None:
    partition = a_partition(7, announced=False)
    assert taken(partition) == []

    assert announce(partition) == Mark(7, 1)

    assert taken(partition) == [(7, 1)]


def test_what_killed_a_process_comes_alone_and_its_neighbours_never_count_as_often() -> None:
    """Messages 0 to 9, of which 4 kills whoever reads it, be it beside the others."""
    offsets, done, counts = range(10), set[int](), list[tuple[int, int]]()
    partition = a_partition(*offsets, announced=False)

    for _ in range(12):
        announce(partition)
        batch = taken(partition)
        while batch:
            killers = [pair for pair in batch if pair[0] == 4]
            counts += killers
            if killers:
                break
            assert all(count <= 3 for _, count in batch)
            for offset, _ in batch:
                done.add(offset)
                partition.settle(offset)
            announce(partition)
            batch = taken(partition)
        partition = after_a_crash(partition, *offsets)

    assert [count for _, count in counts] == list(range(1, 13))
    assert done == {0, 1, 2, 3}
    # Once it is out of the way, all is as ever.
    announce(partition)
    assert taken(partition) == [(4, 13)]
    partition.settle(4)
    announce(partition)
    assert taken(partition) == [(5, 3)]


def test_a_process_that_made_progress_and_died_leaves_no_suspect() -> None:
    partition = a_partition(*range(6))
    taken(partition, 3)
    for offset in range(3):
        partition.settle(offset)
    mark = partition.progress()
    assert mark is not None
    partition.wrote(mark)

    again = after_a_crash(partition, *range(6))

    assert announce(again) == Mark(3, 2, 503)
    assert taken(again) == [(3, 2), (4, 2), (5, 2)]


def test_a_clean_end_does_not_count_as_a_hand_over_but_what_is_still_held_does() -> None:
    held, released = a_partition(1, 2), a_partition(1, 2)
    for partition in (held, released):
        taken(partition)
    for offset in (1, 2):
        released.release(offset, 1)

    assert released.farewell() == Mark(1, 0)
    assert held.farewell() is None


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "x",
        "[]",
        "1",
        '{"attempts": "3"}',
        '{"attempts": -1}',
        '{"attempts": true}',
        '{"attempts": 3, "until": "x"}',
        "[" * 5000,
        '{"attempts": 1e400}',
    ],
)
def test_where_nothing_of_ours_stands_beside_an_offset_somebody_may_hold_what_comes(
    metadata: str | None,
) -> None:
    assert Mark.read(7, metadata) == Mark(7, 1)


def test_no_more_is_handed_over_at_once_than_counts_as_handed_over_after_a_crash() -> None:
    offsets = range(5, 1005)
    partition = a_partition(*offsets)

    first = taken(partition, limit=5000)
    after = after_a_crash(partition, *offsets)
    announce(after)

    assert [offset for offset, _ in first] == list(range(5, 505))
    assert {count for _, count in taken(after, limit=5000)} == {2}


@pytest.mark.parametrize("until", [2**31, 2**63, 10**30])
def test_a_mark_is_read_within_what_the_tables_hold(until: int) -> None:
    mark = Mark.read(7, json.dumps({"attempts": 10**30, "until": until}))
    assert (mark.attempts, mark.until) == (COUNT_MAX, None)
    assert taken(a_partition(7, mark=mark)) == [(7, COUNT_MAX)]


def test_a_mark_is_read_as_it_was_written() -> None:
    for mark in (Mark(7, 3), Mark(7, 3, 12), Mark(0, 0)):
        assert Mark.read(mark.offset, mark.metadata) == mark


# ── what other books may know ─────────────────────────────────────────────────────────────────────────


def known(partition: Partition, count: int = 1) -> list[tuple[int, bool]]:
    """Hand so many over and settle them; each with whether it may be known, as far as is known here."""
    announce(partition)
    found = [(record.offset, record.may_be_known) for record in partition.take(count)]
    for offset, _ in found:
        partition.settle(offset)
    mark = partition.progress()
    if mark is not None:
        partition.wrote(mark)
    return found


@pytest.mark.parametrize(
    "mark", [None, Mark.read(0, ""), Mark.read(0, '{"attempts": 1, "catches_up": true}')]
)
def test_until_the_end_new_books_know_nothing_and_then_all(mark: Mark | None) -> None:
    partition = a_partition(0, 1, mark=mark)
    partition.reached_end(2)
    partition.add(Record(2, "0-2-0", b"{}", NOW, {}))

    assert known(partition, 9) + known(partition, 9) == [(0, True), (1, True), (2, False)]


@pytest.mark.parametrize("reached", [None, 4])
def test_who_goes_on_with_books_that_have_not_reached_the_end_catches_up_too(reached: int | None) -> None:
    """A crash, a stop, or a second member of the group: what is left was no more read by us than before."""
    partition = a_partition(*range(4))
    if reached is not None:
        # The end is buffered, and what lies before is not done.
        partition.reached_end(reached)
    known(partition, 2)
    farewell = partition.farewell()
    again = after_a_crash(partition, *range(5))
    assert farewell is not None
    after_a_stop = a_partition(2, 3, mark=Mark.read(farewell.offset, farewell.metadata))

    assert dict(known(again, 9))[3]
    assert known(after_a_stop, 9) == [(2, True), (3, True)]


def test_books_that_have_reached_the_end_know_all_that_comes_from_there_on() -> None:
    partition = a_partition(0)
    partition.reached_end(1)
    known(partition)
    again = after_a_crash(partition)

    again.add(Record(1, "0-1-0", b"{}", NOW, {}))
    again.reached_end(2)

    assert known(again) == [(1, False)]


@pytest.mark.parametrize("loaded_first", [True, False])
def test_what_lies_before_the_books_is_read_again_and_may_be_known(*, loaded_first: bool) -> None:
    """Where the broker has lost the end of a partition, the offset of the books is not there any more."""
    partition = a_partition(mark=Mark(7, 0)) if loaded_first else Partition(0, 1)
    for offset in (6, 7):
        partition.add(Record(offset, f"0-{offset}-0", b"{}", NOW, {}))
    if not loaded_first:
        partition.load(Mark(7, 0))

    assert known(partition, 2) == [(6, True), (7, False)]
