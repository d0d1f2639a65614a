"""One delivery, one outcome: the first that is committed, however differently the two who save it judge.

Two stores have settings of their own, as two processes in a rolling change do. One is held back between its
statements and its COMMIT while the other saves the same delivery.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from processor.database.connection import connect
from processor.database.queries import queries
from processor.errors import Reason
from processor.model import Delivery, Message, Rejection, Tries, Verdict
from processor.runtime.outages import OutageRetry
from processor.store.store import Judge, Store
from processor.validation.receive_limit import SuspectLimits
from processor.validation.validator import Schemas
from processor.wire.formats import Claimed
from tests.builders import a_body, a_delivery
from tests.fixtures.database import REGISTRY_WAITS, Saver
from tests.rig import wait_until

Db = psycopg.Connection[Any]
TAKEN = "taken"
"""The message id under which another delivery's message is stored already."""


class HeldBack:
    """A connection whose next transaction waits before its COMMIT until it is let go."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.holds = False
        self.arrived, self.let_go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield
            if self.holds:
                self.arrived.set()
                assert self.let_go.wait(30)


class Otherwise(Schemas):
    """Judges a message as other settings or another release would."""

    def __init__(self, change: Callable[[Message], Verdict]) -> None:
        super().__init__(body_bytes_max=1024 * 1024, json_depth_max=64)
        self._change = change

    def validate(self, delivery: Delivery, *, may_wait: bool = True) -> Verdict:
        verdict = super().validate(delivery, may_wait=may_wait)
        return self._change(verdict) if isinstance(verdict, Message) else verdict


def _rejected(message: Message, claimed: Claimed) -> Rejection:
    return Rejection(
        message.delivery, message.registry_version, Reason.UNKNOWN_TENANT, {"message": "no tenant"}, claimed
    )


def _unread(message: Message) -> Verdict:
    limits = SuspectLimits(
        Schemas(body_bytes_max=1024, json_depth_max=64), judge_timeout_s=1, receive_count_max=0
    )
    unread = limits.unread(message.delivery, Tries())
    assert unread is not None
    return replace(unread, registry_version=message.registry_version)


JUDGES: dict[str, Callable[[], Judge]] = {
    "stored": lambda: Otherwise(lambda message: message),
    "stored as another's": lambda: Otherwise(lambda message: replace(message, tenant_id="globex")),
    "duplicate": lambda: Otherwise(lambda message: replace(message, message_id=TAKEN)),
    "id_conflict": lambda: Otherwise(
        lambda message: replace(message, message_id=TAKEN, payload='{"total": 1}')
    ),
    "too_large": lambda: Schemas(body_bytes_max=1, json_depth_max=64),
    "unknown_tenant": lambda: Otherwise(
        lambda message: _rejected(message, Claimed("acme", message.event_type, message.message_id))
    ),
    "of another tenant": lambda: Otherwise(
        lambda message: _rejected(message, Claimed("nobody", message.event_type, message.message_id))
    ),
    "of no key": lambda: Otherwise(lambda message: _rejected(message, Claimed())),
    "dead_lettered": lambda: Otherwise(_unread),
}


def a_store(connection: Any, judge: Judge) -> Store:
    retry = OutageRetry("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connection, judge, retry, timeout_s=20, keys_by_settings=True)
    store.load_registry()
    return store


PLACES = """
    SELECT 'message' FROM message WHERE delivery_id = %(id)s
    UNION ALL SELECT 'duplicate' FROM duplicate WHERE delivery_id = %(id)s
    UNION ALL SELECT 'rejection' FROM rejection WHERE delivery_id = %(id)s
"""


@pytest.mark.parametrize("receive_counts", [(1, 2), (2, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("first", JUDGES)
def test_of_two_who_save_one_delivery_at_once_the_second_finds_the_first(
    saver: Saver, database_url: str, db: Db, first: str, receive_counts: tuple[int, int]
) -> None:
    """The second may be the one whose process was paused since the first hand-over."""
    saver.save(a_delivery(id=TAKEN))
    for second, judge in JUDGES.items():
        body, name = a_body(), f"seen by {second}"
        deliveries = [a_delivery(body, delivery_id=name, receive_count=count) for count in receive_counts]
        judges = [JUDGES[first](), judge()]

        outcomes = saved_at_once(database_url, db, judges, deliveries)

        assert outcomes[1] == "redelivered"
        assert outcomes[0] != "redelivered"
        assert len(db.execute(PLACES, {"id": name}).fetchall()) == 1


def saved_at_once(
    database_url: str, db: Db, judges: list[Judge], deliveries: list[Delivery]
) -> dict[int, str]:
    """Save two, the second while the first is between its statements and its COMMIT; gives the outcomes."""
    outcomes: dict[int, str] = {}
    with connect(database_url, timeout_s=20) as held, connect(database_url, timeout_s=20) as other:
        held_back = HeldBack(held)
        stores = [a_store(held_back, judges[0]), a_store(other, judges[1])]

        def save(which: int) -> None:
            [settlement] = stores[which].save([judges[which].validate(deliveries[which])])
            outcomes[which] = settlement.outcome.value

        threads = [threading.Thread(target=save, args=[which], daemon=True) for which in (0, 1)]
        held_back.holds = True
        threads[0].start()
        assert held_back.arrived.wait(20)
        threads[1].start()
        wait_until(
            lambda: not threads[1].is_alive() or db.execute(REGISTRY_WAITS).fetchone() is not None,
            "the second waits for the first",
        )
        held_back.let_go.set()
        for thread in threads:
            thread.join(30)
    return outcomes


@pytest.mark.parametrize("first", JUDGES)
def test_two_hand_overs_that_one_process_holds_end_as_one_row(
    saver: Saver, database_url: str, db: Db, first: str
) -> None:
    """Such as two receives of which the second exceeds the limit: both are in one transaction."""
    saver.save(a_delivery(id=TAKEN))
    judge = JUDGES[first]()
    with connect(database_url, timeout_s=20) as connection:
        for judges in ([judge, Otherwise(_unread)], [Otherwise(_unread), judge]):
            stores = [a_store(connection, each) for each in judges]
            delivery = a_delivery(receive_count=2)

            outcomes = stores[0].save([each.validate(delivery) for each in judges])

            assert [settlement.outcome.value for settlement in outcomes].count("redelivered") == 1
            assert len(db.execute(PLACES, {"id": delivery.delivery_id}).fetchall()) == 1


MANY = """
    INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, payload, queue, delivery_id,
      receive_count)
    SELECT 'acme', 'many-' || n, 'order.created', 1, now(), '{"total": 1}', 'events', 'many-' || n, 1
    FROM generate_series(%s::int, %s::int) AS n
"""


def test_a_delivery_is_found_without_a_key_by_few_pages_summarised_or_not(
    saver: Saver, database_url: str, db: Db
) -> None:
    db.execute(MANY, [1, 8000])
    db.execute("SELECT brin_summarize_new_values('message_delivery_bloom')")
    db.execute(MANY, [8001, 8100])
    db.execute("ANALYZE message")
    unreadable = [a_delivery(b"?", delivery_id=f"many-{n}", receive_count=2) for n in (1, 4000, 8050, 99_999)]

    outcomes = saver.outcomes(*unreadable)

    assert outcomes == ["redelivered", "redelivered", "redelivered", "not_json"]
    with connect(database_url, timeout_s=20) as connection:
        plan = connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {queries('save')['find_outcomes']}",
            {"queue": ["events"], "delivery_id": ["many-1"], "again": [True]},
        ).fetchall()[0][0]
    assert "message_delivery_bloom" in str(plan)
    assert "Seq Scan" not in str(plan)
    pages = db.execute("SELECT pg_relation_size('message') / 8192").fetchone()
    assert pages is not None
    assert plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"] < pages[0] / 2


def test_fresh_deliveries_are_saved_before_redelivered_ones_and_beside_other_saves(
    saver: Saver, database_url: str, db: Db
) -> None:
    deliveries = [a_delivery(id=f"o-{place}", receive_count=1 + place % 2) for place in range(6)]
    with connect(database_url) as other, other.transaction():
        other.execute("SELECT registry_version_held(true)")
        thread = threading.Thread(target=saver.save, args=deliveries, daemon=True)
        thread.start()
        wait_until(lambda: db.execute(REGISTRY_WAITS).fetchone() is not None, "the redelivered ones wait")

        assert sorted(db.execute("SELECT message_id FROM message").fetchall()) == [
            ("o-0",),
            ("o-2",),
            ("o-4",),
        ]
    thread.join(30)

    rows = db.execute("SELECT xmin::text, array_agg(receive_count) FROM message GROUP BY 1").fetchall()
    assert sorted(counts for _, counts in rows) == [[1, 1, 1], [2, 2, 2]]
