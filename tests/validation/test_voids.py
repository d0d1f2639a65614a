"""Tests that a void subtracts exactly what its message added, in any order, and nothing else."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from processor.check.meters import look_at_meters
from processor.database.connection import connect
from processor.model import Delivery
from processor.operations import registry
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from tests.builders import a_delivery
from tests.fixtures.database import REGISTRY_WAITS, MakeSaver, Saver, books
from tests.fixtures.meters import a_pulse, a_void, add_meter, differences, totals
from tests.fixtures.usage import Command
from tests.rig import wait_until

Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def metered(db: Db) -> None:
    """The meter of pulses; the schemas accept everything."""
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db)


def voids(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT tenant_id, message_id, producer, void_id FROM voided ORDER BY 1, 2, 3"
    ).fetchall()


# ── in any order ──────────────────────────────────────────────────────────────────────────────────────


ORDERS = [*itertools.permutations(["pulse", "void", "void again", "pulse again"])]


@pytest.mark.parametrize("together", [True, False])
def test_a_void_and_its_message_cancel_in_any_order_and_number(
    saver: Saver, db: Db, *, together: bool
) -> None:
    """In one batch or in four."""
    saver.save(a_pulse("0.2"))
    for number, order in enumerate(ORDERS):
        target = f"p-{number}"
        deliveries = {
            "pulse": a_pulse("0.1", id=target),
            "pulse again": a_pulse("0.1", id=target),
            "void": a_void(target),
            "void again": a_void(target),
        }
        batch = [deliveries[name] for name in order]
        for part in [batch] if together else [[delivery] for delivery in batch]:
            saver.save(*part)

        assert totals(db) == [("acme", "disk", Decimal("0.2"), 1)], order

    assert books(db) == {"message": 1 + 3 * len(ORDERS), "duplicate": len(ORDERS), "rejection": 0}
    assert len(voids(db)) == len(ORDERS)
    assert differences(db) == []


def test_a_void_subtracts_from_all_meters_of_its_message(saver: Saver, db: Db) -> None:
    add_meter(db, "units", group_names=["unit"], group_pointers=["/use_unity"], window_size="none")
    add_meter(db, "pulses", aggregation="count", value_pointer=None, window_size="day", tenant_id="acme")
    saver.save(a_pulse(5, id="p-1"), a_pulse(7, tenant_id="globex"))

    saver.save(a_void("p-1"))

    sums = db.execute("SELECT tenant_id, meter, value, messages FROM usage ORDER BY 1, 2").fetchall()
    assert sums == [
        ("acme", "pulse", 0, 0),
        ("acme", "pulses", 0, 0),
        ("acme", "units", 0, 0),
        ("globex", "pulse", 7, 1),
        ("globex", "units", 7, 1),
    ]
    assert differences(db) == []


def test_first_and_last_times_stay(saver: Saver, db: Db) -> None:
    times = "SELECT first_at, last_at FROM total"
    saver.save(a_pulse(5, id="p-1"), a_pulse(6))
    before = db.execute(times).fetchall()

    saver.save(a_void("p-1"))

    assert db.execute(times).fetchall() == before


# ── what a void does not touch ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [1, -1])
def test_a_void_affects_no_other_tenant_or_producer(saver: Saver, db: Db, order: int) -> None:
    pulses = [a_pulse(1, id="p-1", tenant_id="globex"), a_pulse(2, id="p-1", producer="shop")]

    for batch in [pulses, [a_void("p-1")]][::order]:
        saver.save(*batch)

    assert totals(db) == [("acme", "disk", 2, 1), ("globex", "disk", 1, 1)]

    saver.save(a_void("p-1", "shop"))
    assert totals(db) == [("acme", "disk", 0, 0), ("globex", "disk", 1, 1)]
    assert differences(db) == []


def test_a_void_of_a_void_has_no_effect(saver: Saver, db: Db) -> None:
    add_meter(
        db, "voids", event_type="void", aggregation="count", value_pointer=None,
        group_names=[], group_pointers=[],
    )  # fmt: skip
    saver.save(a_void("v-1", id="v-2"), a_pulse(5, id="p-1"), a_void("p-1", id="v-1"))
    saver.save(a_void("v-2", id="v-3"), a_void("v-4", id="v-4"))

    assert totals(db) == [("acme", None, 4, 4)]
    assert differences(db) == []


LONG = "x" * 257
INVALID = [
    "null", "5", '"p-1"', "[]", '["message_id"]', "{}", '{"message_id": null}', '{"message_id": 5}',
    '{"message_id": ["p-1"]}', '{"message_id": "p-1", "producer": 5}',
    '{"message_id": "p-1", "producer": {}}', '{"message_id": "p-1", "producer": null}',
    f'{{"message_id": "{LONG}"}}', f'{{"message_id": "p-1", "producer": "{LONG}"}}', '{"messageId": "p-1"}',
]  # fmt: skip


def a_void_of(payload: str) -> Delivery:
    body = f'{{"tenant_id": "acme", "event_type": "void", "payload": {payload}}}'
    return a_delivery(body.encode(), sent_now=True)


@pytest.mark.parametrize("payload", [*INVALID, '{"message_id": ""}'])
def test_a_void_that_names_no_message_is_rejected_even_if_its_schema_accepts_it(
    saver: Saver, db: Db, payload: str
) -> None:
    saver.save(a_pulse(5, id="p-1"))

    assert saver.outcomes(a_void_of(payload)) == ["schema_violation"]

    [(message,)] = db.execute("SELECT detail ->> 'message' FROM rejection").fetchall()
    assert "the void cancels nothing; expected" in message
    assert voids(db) == []
    assert totals(db) == [("acme", "disk", 5, 1)]


def test_a_void_that_names_no_message_is_accepted_without_meters(saver: Saver, db: Db) -> None:
    """The void cancels nothing there: the statement that cancels has the same limits."""
    db.execute("UPDATE meter SET status = 'retired'")
    add_meter(db, "its_own", tenant_id="globex")

    for payload in INVALID:
        assert saver.outcomes(a_void_of(payload)) == ["stored"], payload

    assert voids(db) == []


# ── what cancels nothing is said ──────────────────────────────────────────────────────────────────────


def idle(processor: Command, *words: str) -> list[tuple[str, str, list[str]]]:
    answer = processor("usage", "voids", "--json", *words)
    assert answer.code == 0
    return [(row["message_id"], row["why"], row["producers"]) for row in answer.json]


def test_voids_that_cancelled_nothing_are_listed_with_the_reason(
    saver: Saver, db: Db, processor: Command
) -> None:
    registry.publish_schema(db, "note", {})
    registry.publish_schema(db, "created", {}, id_scope=["/user"])
    counting: dict[str, Any] = {
        "aggregation": "count",
        "value_pointer": None,
        "group_names": [],
        "group_pointers": [],
    }
    add_meter(db, "created", event_type="created", **counting)
    created = a_delivery(tenant_id="acme", event_type="created", id="c-1", payload={"user": "ada"})
    note = a_delivery(tenant_id="acme", event_type="note", id="n-1", payload={})
    saver.save(a_pulse(5, id="p-1"), created, note)

    saver.save(*(a_void(target, id=f"v-{target}") for target in ("p-1", "p-2", "c-1", "n-1", "v-p-1")))

    assert sorted(idle(processor)) == [
        ("c-1", "other_producer", ["created/ada"]),
        ("n-1", "not_counted", []),
        ("p-2", "no_message", []),
        ("v-p-1", "is_a_void", []),
    ]
    assert idle(processor, "--tenant", "globex") == []
    assert len(idle(processor, "--limit", "1")) == 1
    assert "created/ada" in processor("usage", "voids").out

    saver.save(a_pulse(6, id="p-2"), a_void("c-1", "created/ada"))
    assert ("p-2", "no_message", []) not in idle(processor)
    assert dict(db.execute("SELECT meter, value FROM usage").fetchall()) == {"pulse": 0, "created": 0}


def test_a_second_void_of_a_message_is_not_listed(saver: Saver, processor: Command) -> None:
    assert processor("usage", "voids").out == "no void that cancelled nothing\n"

    saver.save(a_pulse(5, id="p-1"), a_void("p-1", id="v-1"), a_void("p-1", id="v-2"))

    assert idle(processor) == []


def test_check_reports_voids_without_their_message_after_a_day(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"), a_void("p-1"), a_void("p-2"), a_void("p-3"), a_void("p-4"))
    db.execute("UPDATE voided SET voided_at = now() - interval '2 days' WHERE message_id <> 'p-3'")
    db.execute("UPDATE voided SET voided_at = now() - interval '36 days' WHERE message_id = 'p-4'")

    found = {finding.what: finding for finding in look_at_meters(db)}

    assert found["idle voids"].found.startswith("1 of the last 35 days")
    assert "processor usage voids" in (found["idle voids"].advice or "")


def test_a_void_without_a_producer_cancels_the_message_without_one(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"), a_pulse(6, id="p-1", producer="shop"))

    saver.save(a_delivery(tenant_id="acme", event_type="void", payload={"message_id": "p-1"}, sent_now=True))

    assert totals(db) == [("acme", "disk", 6, 1)]


# ── what was rejected first ───────────────────────────────────────────────────────────────────────────


def replay(saver: Saver, db: Db) -> list[str]:
    """Replay all open rejections, as the command does."""
    deliveries = QuarantineSource(db, RejectionSelection()).receive(10, 0)
    return saver.outcomes(*deliveries)


def test_a_message_that_was_rejected_and_is_replayed_after_its_void_does_not_count(
    saver: Saver, db: Db
) -> None:
    saver.save(a_pulse(5, id="p-1", tenant_id="newcomer"), a_void("p-1", tenant_id="newcomer", id="v-1"))
    registry.add_tenant(db, "newcomer")
    saver.save(a_void("p-1", tenant_id="newcomer", id="v-2"))

    assert sorted(replay(saver, db)) == ["stored", "stored"]

    assert totals(db) == []
    assert voids(db) == [("newcomer", "p-1", "", "v-2")]
    assert differences(db) == []


def test_a_rejected_void_subtracts_after_its_replay(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "void", {"required": ["why"]}, "acme")
    saver.save(a_pulse(5, id="p-1"))
    assert saver.outcomes(a_void("p-1")) == ["schema_violation"]
    assert totals(db) == [("acme", "disk", 5, 1)]
    registry.publish_schema(db, "void", {}, "acme")

    assert replay(saver, db) == ["stored"]

    assert totals(db) == [("acme", "disk", 0, 0)]
    assert differences(db) == []


def test_a_repeated_void_is_a_duplicate_and_one_with_other_content_a_conflict(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"), a_pulse(6, id="p-2"))

    outcomes = saver.outcomes(*(a_void(message_id, id="v-1") for message_id in ("p-1", "p-1", "p-2")))

    assert outcomes == ["stored", "duplicate", "id_conflict"]
    assert totals(db) == [("acme", "disk", 6, 1)]


# ── what did not count is not taken away ──────────────────────────────────────────────────────────────


def test_a_miss_is_not_subtracted(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, "x" * 2000, id="p-1"), a_pulse(1, id="p-2", occurred_at="2020-01-01T00:00:00Z"))

    saver.save(a_void("p-1"), a_void("p-2"))

    assert totals(db) == []
    # The count of misses is history, too.
    assert db.execute("SELECT reason, messages FROM meter_miss ORDER BY 1").fetchall() == [
        ("group_too_long", 1),
        ("too_old", 1),
    ]
    assert differences(db) == []


def test_a_void_changes_retired_meters_but_no_later_ones(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"))
    add_meter(db, "later")
    db.execute("UPDATE meter SET status = 'retired' WHERE meter = 'pulse'")
    saver.save(a_pulse(7, id="p-2"))

    saver.save(a_void("p-1"), a_void("p-2"))

    sums = db.execute("SELECT meter, value, messages FROM usage ORDER BY 1").fetchall()
    assert sums == [("later", 0, 0), ("pulse", 0, 0)]
    assert differences(db) == []


def test_voids_still_subtract_when_every_meter_is_retired(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"))
    db.execute("UPDATE meter SET status = 'retired'")

    saver.save(a_void("p-1"))

    assert totals(db) == [("acme", "disk", 0, 0)]
    assert differences(db) == []


def test_a_void_subtracts_only_what_a_rebuild_counted(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"), a_pulse(7, id="p-2", occurred_at="2026-01-01T00:30:00Z"))
    add_meter(db, "rebuilt", past_limit=None)
    with db.transaction():
        db.execute("""
            INSERT INTO usage_rebuild
            SELECT meter_id, date_trunc('hour', now()) - interval '1 day', now() + interval '1 day'
            FROM meter WHERE meter = 'rebuilt'
        """)
        db.execute("""
            INSERT INTO total (tenant_id, meter_id, window_start, group_key, slot, value, messages,
              first_at, last_at)
            SELECT message.tenant_id, metered.meter_id, window_start, group_key, 0, value, 1, now(), now()
            FROM message CROSS JOIN LATERAL metered(
              message.tenant_id, message_id, producer, message.event_type, payload,
              coalesce(occurred_at, sent_at), stored_at)
            JOIN meter ON meter.meter_id = metered.meter_id
            WHERE meter.meter = 'rebuilt'
        """)

    saver.save(a_void("p-1"), a_void("p-2"))

    sums = db.execute("SELECT value, messages FROM usage WHERE meter = 'rebuilt'").fetchall()
    assert sums == [(0, 0)]
    assert differences(db) == []


def test_a_void_reopens_a_closed_window(saver: Saver, db: Db) -> None:
    saver.save(a_pulse(5, id="p-1"), a_pulse(6, "cpu"))
    db.execute("UPDATE total SET is_closed = true")

    saver.save(a_void("p-1"))

    closed = db.execute(
        "SELECT group_key::jsonb ->> 'product_sku', is_closed FROM total ORDER BY 1"
    ).fetchall()
    assert closed == [("cpu", True), ("disk", False)]


# ── several processes ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def held_before_commit(monkeypatch: pytest.MonkeyPatch, thread_name: str) -> Iterator[threading.Event]:
    """A thread whose saves wait after their statements until an event is set."""
    go, transaction = threading.Event(), psycopg.Connection.transaction

    @contextmanager
    def held(connection: Any, *args: Any, **options: Any) -> Iterator[Any]:
        with transaction(connection, *args, **options) as inner:
            yield inner
            if threading.current_thread().name == thread_name:
                assert go.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "transaction", held)
        yield go


def start(name: str, deed: Callable[..., Any], *deliveries: Delivery) -> threading.Thread:
    thread = threading.Thread(target=deed, args=deliveries, name=name, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("first", ["pulse", "void"])
def test_a_void_and_its_message_that_are_saved_at_once_see_each_other(
    make_saver: MakeSaver, db: Db, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Otherwise neither would see the other's row, and the message would keep counting."""
    both = {"pulse": a_pulse(5, id="p-1"), "void": a_void("p-1")}
    second = {"pulse": "void", "void": "pulse"}[first]
    saving = """
        SELECT 1 FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database()
    """

    one, another = make_saver(), make_saver()

    with held_before_commit(monkeypatch, "held") as go:
        held = start("held", one.save, both[first])
        wait_until(lambda: db.execute(saving).fetchone() is not None, "the first has written")
        other = start("other", another.save, both[second])
        wait_until(
            lambda: not other.is_alive() or db.execute(REGISTRY_WAITS).fetchone() is not None,
            "the second waits",
        )
        go.set()
        held.join(30)
        other.join(30)

    assert books(db)["message"] == 2
    assert [row[2:] for row in totals(db)] in ([], [(0, 0)])
    assert differences(db) == []


def test_concurrent_voids_of_four_processes_cause_no_deadlock_and_exact_totals(
    make_saver: MakeSaver, db: Db
) -> None:
    """Each process voids messages that others store, in another order, with pulses of the same few totals."""
    savers = [make_saver() for _ in range(4)]
    trouble: list[BaseException] = []

    def work(saver: Saver, seed: int) -> None:
        chance = random.Random(seed)
        numbers = [*range(60)]
        try:
            for turn in range(6):
                chance.shuffle(numbers)
                batch = [a_pulse("0.1", f"sku-{n % 3}", id=f"p-{n}-{turn}") for n in numbers[:25]]
                batch += [a_void(f"p-{n}-{chance.randrange(6)}") for n in numbers[:12]]
                chance.shuffle(batch)
                saver.save(*batch)
        except BaseException as error:  # noqa: BLE001 - shown below
            trouble.append(error)

    threads = [
        threading.Thread(target=work, args=(saver, seed), daemon=True) for seed, saver in enumerate(savers)
    ]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert trouble == []
    assert differences(db) == []
    assert db.execute(
        "SELECT count(*) > 0 FROM voided JOIN message USING (tenant_id, message_id)"
    ).fetchone() == (True,)
    assert db.execute(deadlocks).fetchone() == (0,)


def test_a_replay_of_voids_waits_for_a_running_process(
    make_saver: MakeSaver, database_url: str, db: Db
) -> None:
    saver = make_saver()
    registry.set_tenant_status(db, "acme", "suspended")
    saver.save(a_void("p-1"))
    registry.set_tenant_status(db, "acme", "active")
    with connect(database_url) as saving, saving.transaction():
        # Held as by a running save that contains the target.
        saving.execute("SELECT registry_version_held(true)")
        thread = start("replay", lambda: replay(make_saver(), db))
        # `db` is also the replay's own connection, for its queries.
        wait_until(lambda: saving.execute(REGISTRY_WAITS).fetchone() is not None, "the replay waits")
    thread.join(30)

    assert [message_id for _, message_id, _, _ in voids(db)] == ["p-1"]
