"""What a sender's rejections take is bounded, others keep theirs whole, and somebody hears of it."""

import os
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from processor.check.storage import look_at_storage
from processor.database.connection import connect
from processor.errors import Reason
from processor.operations import registry
from processor.operations.storage_alarm import StorageAlarm, StorageAlarmLimits, find_large
from processor.store.rejection_room import HEAD_BYTES, WHOLE_BYTES_MAX, make_fit
from tests.builders import a_delivery
from tests.fixtures.database import Saver, a_bound_saver
from tests.fixtures.usage import Command

Db = psycopg.Connection[Any]

ROOM = 310_000
GARBAGE_BYTES = 60_000
CUT_BYTES_MAX = 4 * HEAD_BYTES


@pytest.fixture
def small(saver: Saver) -> Saver:
    """A saver with room for five of the bodies below."""
    saver.store.rejected_bytes_max = ROOM
    return saver


def garbage(number: int = 0, *, sender: str | None = "AROA1:session-{}", **more: Any) -> Any:
    # Nothing that compresses: what is counted is what the disk has.
    body = b"{" + os.urandom(GARBAGE_BYTES)
    return a_delivery(body, sender_id=sender and sender.format(number), **more)


def accounts(db: Db) -> dict[str, tuple[int, int]]:
    rows = db.execute(
        "SELECT holder, sum(bytes)::bigint, sum(row_count)::bigint FROM rejection_room GROUP BY holder"
        " HAVING sum(row_count) <> 0 OR sum(bytes) <> 0"
    )
    return {holder: (held, count) for holder, held, count in rows}


def assert_accounts_are_the_tables(db: Db) -> None:
    rows = db.execute(
        "SELECT holder, sum(kept_bytes)::bigint, count(*) FROM rejection"
        " WHERE status = 'open' OR rule_id IS NOT NULL GROUP BY holder"
    )
    assert accounts(db) == {holder: (held, count) for holder, held, count in rows}


def table_bytes(db: Db) -> int:
    row = db.execute("SELECT pg_total_relation_size('rejection')").fetchone()
    assert row is not None
    return int(row[0])


def test_a_flood_of_garbage_takes_bounded_room_and_others_keep_theirs_whole(small: Saver, db: Db) -> None:
    bodies = [garbage(number) for number in range(1500)]

    for at in range(0, len(bodies), 100):
        small.save(*bodies[at : at + 100])
    flooded = table_bytes(db)
    others = [
        garbage(tenant_id="acme"),
        garbage(sender="AROA2:x"),
        garbage(sender=None),
        a_delivery(tenant_id="acme", payload={"total": -1, "note": "x" * GARBAGE_BYTES}, sender_id="AROA1:a"),
    ]
    others[0] = a_delivery(others[1].body, sender_id="AROA3")
    small.save(*others)

    rows = db.execute("SELECT count(*), count(body_bytes), max(octet_length(body)) FROM rejection").fetchone()
    assert rows is not None
    assert rows[0] == len(bodies) + len(others), "each has its row"
    assert rows[1] == len(bodies) - 5
    # 90 MB came.
    assert flooded < 10 * ROOM + len(bodies) * CUT_BYTES_MAX
    whole = db.execute(
        "SELECT count(*) FROM rejection WHERE body_bytes IS NULL AND delivery_id = ANY (%s)",
        ([each.delivery_id for each in others],),
    ).fetchone()
    assert whole == (len(others),)
    assert_accounts_are_the_tables(db)


def test_what_is_cut_says_so_and_is_known_by_length_and_digest(
    small: Saver, db: Db, processor: Command
) -> None:
    bodies = [garbage() for _ in range(6)]
    small.save(*bodies)
    cut = bodies[-1]

    [row] = db.execute(
        "SELECT rejection_id, body, body_bytes, body_sha256, detail ->> 'message', kept_bytes FROM rejection"
        " WHERE body_bytes IS NOT NULL"
    ).fetchall()
    shown = processor("rejection", "show", row[0])
    replayed = processor("rejection", "replay", row[0])
    others = processor("rejection", "replay", "--all", "--json")

    assert bytes(row[1]) == cut.body[:HEAD_BYTES]
    assert (row[2], bytes(row[3])) == (len(cut.body), sha256(cut.body).digest())
    assert "UTF-8" in row[4]
    assert "STORAGE_REJECTED_BYTES" in row[4]
    assert row[5] <= CUT_BYTES_MAX
    assert f"the first of {len(cut.body)}" in shown.out
    assert "rejection replay" not in shown.out
    assert replayed.code == 1
    assert "can't be replayed: have them sent again" in replayed.error
    assert (others.code, others.json["cut"]) == (1, 1)
    assert others.json["outcomes"] == {"not_utf8": 5}
    assert db.execute("SELECT sum(replay_count) FROM rejection WHERE body_bytes IS NOT NULL").fetchone() == (
        0,
    )


def test_a_redelivery_of_what_was_cut_has_its_outcome(small: Saver, db: Db) -> None:
    bodies = [garbage(delivery_id=f"d-{number}") for number in range(6)]
    small.save(*bodies)

    again = small.save(*(garbage(delivery_id=each.delivery_id, receive_count=2) for each in bodies))

    assert {each.outcome for each in again} == {"redelivered"}
    assert_accounts_are_the_tables(db)


def test_attributes_and_details_find_no_way_round(small: Saver, db: Db) -> None:
    beside: dict[str, Any] = {f"a{number}": "x" * 50_000 for number in range(4)}
    for _ in range(5):
        small.save(a_delivery(b"{", attributes=beside))

    sizes = db.execute(
        "SELECT octet_length(attributes::text) + octet_length(detail::text) FROM rejection ORDER BY 1 DESC"
    ).fetchall()
    assert [size > 100_000 for (size,) in sizes] == [True, False, False, False, False]
    assert max(size for (size,) in sizes[1:]) < CUT_BYTES_MAX


def test_small_ones_and_imports_stay_whole(small: Saver, db: Db) -> None:
    small.save(*(garbage() for _ in range(6)))

    small.save(a_delivery(b"{" + b"x" * 100, sender_id="AROA1"))

    assert db.execute("SELECT count(*) FROM rejection WHERE body_bytes IS NOT NULL").fetchone() == (1,)


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE rejection SET status = 'discarded', closed_at = now() WHERE rejection_id <= 3",
        "DELETE FROM rejection WHERE rejection_id <= 3",
        "UPDATE rejection SET status = 'open', closed_at = NULL WHERE status <> 'open'",
        "TRUNCATE rejection",
    ],
)
def test_the_account_follows_whoever_changes_the_table(small: Saver, db: Db, deed: str) -> None:
    """With several connections, so that rows are given back in another slot than they were taken in."""
    small.save(*(garbage(tenant_id="acme") for _ in range(6)))
    db.execute("UPDATE rejection SET status = 'discarded', closed_at = now() WHERE rejection_id = 5")

    db.execute(deed)

    assert_accounts_are_the_tables(db)


def test_what_is_discarded_makes_room(small: Saver, db: Db, processor: Command) -> None:
    small.save(*(garbage() for _ in range(6)))
    assert processor("rejection", "discard", "--all").code == 0

    small.save(garbage())

    [latest] = db.execute("SELECT body_bytes FROM rejection ORDER BY rejection_id DESC LIMIT 1").fetchall()
    assert latest == (None,)


def test_the_tables_of_before_are_not_counted_and_can_be_closed(small: Saver, db: Db) -> None:
    small.save(garbage())
    db.execute("UPDATE rejection SET holder = NULL, kept_bytes = NULL")
    assert accounts(db) == {}

    db.execute("UPDATE rejection SET status = 'discarded', closed_at = now()")

    assert accounts(db) == {}


def test_writers_need_no_right_on_the_accounts(db: Db, log_in: Any) -> None:
    url = log_in("processor_writer")
    saver = a_bound_saver(url)

    saver.save(garbage())
    saver.close()

    assert_accounts_are_the_tables(db)
    with connect(url) as writer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute("UPDATE rejection_room SET bytes = 0")


# ── who hears of it ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def limits() -> StorageAlarmLimits:
    return StorageAlarmLimits(rejected_bytes=ROOM, alarm_bytes=500_000)


def test_an_alarm_begins_at_half_and_ends_once(
    small: Saver, db: Db, database_url: str, limits: StorageAlarmLimits
) -> None:
    alarm = StorageAlarm(lambda: connect(database_url), limits)
    small.save(garbage(), garbage())
    with capture_logs() as quiet:
        alarm.look()
    small.save(garbage())

    with capture_logs() as logged:
        for _ in range(2):
            alarm._look_at = 0.0
            alarm.look()
        db.execute("DELETE FROM rejection")
        alarm._look_at = 0.0
        alarm.look()

    assert quiet == []
    assert [(each["event"], each["holder"]) for each in logged] == [
        ("storage_alarm", "by sender AROA1"),
        ("storage_alarm_over", "by sender AROA1"),
    ]


def test_check_names_who_is_full_and_which_tenants_are_large(
    small: Saver, db: Db, limits: StorageAlarmLimits
) -> None:
    registry.add_tenant(db, "large")
    small.store.load_registry()
    small.save(*(garbage() for _ in range(6)))
    note = os.urandom(10_000).hex()
    small.save(*(a_delivery(tenant_id="large", payload={"total": 1, "note": note}) for _ in range(60)))
    small.save(*(a_delivery() for _ in range(60)))

    found = find_large(db, limits)
    said = {each.what: each for each in look_at_storage(db, limits)}

    assert [(each.who, each.what, each.full) for each in found] == [
        ("by sender AROA1", "rejections", True),
        ("large", "messages", False),
    ]
    assert not said["storage"].fine
    assert {"storage of by sender AROA1", "storage of large"} < said.keys()


def test_an_alarm_without_a_database_is_silent(limits: StorageAlarmLimits) -> None:
    with capture_logs() as logged:
        StorageAlarm(lambda: connect("postgresql://x@127.0.0.1:1/x"), limits).look()

    assert [each for each in logged if each["log_level"] != "debug"] == []


# ── the cut itself ────────────────────────────────────────────────────────────────────────────────────

ROWS = st.lists(
    st.tuples(
        st.binary(max_size=3 * HEAD_BYTES),
        st.integers(0, 3 * HEAD_BYTES),
        st.integers(0, 3 * HEAD_BYTES),
        st.sampled_from("abc"),
        st.sampled_from(["not_json", Reason.DEAD_LETTERED.value]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(rows=ROWS, held=st.integers(0, 20_000), bytes_max=st.integers(1, 20_000))
def test_no_row_takes_more_than_its_holder_has_or_than_a_head(
    rows: list[tuple[bytes, int, int, str, str]], held: int, bytes_max: int
) -> None:
    columns: dict[str, list[Any]] = {
        "body": [row[0] for row in rows],
        "attributes": [f'{{"a": "{"x" * row[1]}", "b": "1"}}' for row in rows],
        "detail": [f'{{"message": "no", "errors": ["{"x" * row[2]}"]}}' for row in rows],
        "reason": [row[4] for row in rows],
    }
    before = {name: list(values) for name, values in columns.items()}

    cut = make_fit(columns, [(row[3], held) for row in rows], bytes_max)

    kept = dict.fromkeys("abc", held)
    for place, (body, _, _, holder, reason) in enumerate(rows):
        kept[holder] += columns["kept_bytes"][place]
        if columns["body_bytes"][place] is None:
            assert all(columns[name][place] == before[name][place] for name in before)
            small = columns["kept_bytes"][place] <= WHOLE_BYTES_MAX
            assert small or kept[holder] <= bytes_max or reason == Reason.DEAD_LETTERED
        else:
            assert columns["kept_bytes"][place] <= CUT_BYTES_MAX
            assert columns["body"][place] == body[:HEAD_BYTES]
            assert columns["body_sha256"][place] == sha256(body).digest()
    assert cut == sum(each is not None for each in columns["body_bytes"])
