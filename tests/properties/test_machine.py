"""Any history of sends, saves, crashes, lost answers, replays and changes of the registry, step by step.

Two processes work on one queue and one database, and one of them takes no long bodies, as in a rolling change
of settings; after each step the tables must be what the ledger says.
The queue is in memory, since it only has to hand over at least once; PostgreSQL is real.
"""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from processor.database.connection import connect
from processor.model import Delivery, Settlement, Verdict
from processor.operations import registry, retention
from processor.operations.audit import audit
from processor.runtime.outages import OutageRetry
from processor.sources.memory import MemorySource
from processor.sources.quarantine import QuarantineSource, RejectionSelection, discard
from processor.store.store import Store
from processor.validation.validator import Schemas
from tests.builders import ORDER_SCHEMA
from tests.fixtures.meters import add_meter, differences
from tests.properties.ledger import GARBAGE, POISON, SIZE_MAX, Event, Ledger, Meter, Place
from tests.properties.tables import MONTHS_PASS, PLACES, RESET, USAGE
from tests.rig import wait_until

Db = psycopg.Connection[Any]

VISIBILITY_S = 60
EVERYTHING = RejectionSelection()

FAULTS = ("killed before the commit", "killed after the commit", "request lost", "answer lost")

METERS = {
    "sold": Meter("order.created", None, adds=True),
    "of acme": Meter("order.created", "acme", adds=False),
    "lost": Meter("order.lost", None, adds=True),
}


class Killed(BaseException):
    """The process is gone."""


class Fragile:
    """A connection on which the next transaction that ends may end badly.

    Closed, it goes back to the spare ones: to open one takes longer than all that is done on it.
    """

    spare: ClassVar[list[psycopg.Connection[Any]]] = []

    def __init__(self, database_url: str, faults: list[str]) -> None:
        self._connection = self.spare.pop() if self.spare else connect(database_url, timeout_s=20)
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        if not self._connection.closed:
            self.spare.append(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield
            fault = self._faults.pop() if self._faults else ""
            if fault == "killed before the commit":
                raise Killed
            if fault == "request lost":
                self._lose()
        if fault == "killed after the commit":
            raise Killed
        if fault == "answer lost":
            self._lose()

    def _lose(self) -> None:
        self._connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


@dataclass
class Process:
    """What one process holds, all of it lost when it dies."""

    schemas: Schemas
    store: Store
    faults: list[str]
    deliveries: list[Delivery] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)

    def save(self) -> list[Settlement] | None:
        """Save what is validated; None: killed."""
        try:
            return self.store.save(self.verdicts)
        except Killed:
            return None


def start_process(database_url: str, which: int) -> Process:
    schemas = Schemas(body_bytes_max=SIZE_MAX if which == TAKES_LITTLE else 1024 * 1024, json_depth_max=64)
    retry = OutageRetry("database", wait_s_max=0.05, stop=threading.Event())
    faults: list[str] = []
    store = Store(
        lambda: Fragile(database_url, faults),  # type: ignore[arg-type,return-value]
        schemas,
        retry,
        timeout_s=20,
    )
    store.load_registry()
    return Process(schemas, store, faults)


def _again(delivery: Delivery) -> Delivery:
    """The next hand-over of a delivery; of one that is replayed, the same."""
    if delivery.rejection_id is not None:
        return delivery
    return replace(delivery, receive_count=delivery.receive_count + 1)


METERS_MAX = 4

TAKES_LITTLE = 1
processes = st.sampled_from([0, 1])


def _events_of(seed: int) -> list[Event]:
    """As a seed has it: drawn one by one, a history would be used up by a few of them."""
    chance = random.Random(seed)
    return [_an_event(chance) for _ in range(chance.randint(1, 8))]


def _an_event(chance: random.Random) -> Event:
    tenant_id = chance.choice(["acme", "acme", "globex", "newcomer"])
    fault = chance.choice([*[None] * 8, GARBAGE, POISON])
    is_long = chance.random() < 0.3
    if chance.random() < 0.15:
        message_id, target = chance.choice(["v", "a", None, None]), chance.choice(["a", "b", "c", "v"])
        return Event(tenant_id, "void", message_id, voids=target, fault=fault, is_long=is_long)
    return Event(
        tenant_id=tenant_id,
        event_type=chance.choice(["order.created", "order.created", "order.lost"]),
        message_id=chance.choice(["a", "b", "c", None]),
        total=Decimal(chance.choice(["1", "1.0", "0.1", "12345678901234567890.123456789"])),
        sku=chance.choice(["disk", "disk", "cpu"]),
        fault=fault,
        is_long=is_long,
    )


events = st.integers(0, 2**32).map(_events_of)


class History(RuleBasedStateMachine):
    """One history, and the ledger that it is compared with."""

    db: ClassVar[Db]
    database_url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.source = MemorySource(visibility_timeout_s=VISIBILITY_S, clock=lambda: self.now)
        self.ledger = Ledger()
        self.processes: list[Process] = []

    @initialize()
    def begin(self) -> None:
        with self.db.transaction():
            self.db.execute(RESET)
        self.add_meter("sold", "hour")
        self.add_meter("of acme", "day")
        self.processes = [start_process(self.database_url, which) for which in range(2)]

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────

    @rule(sent=events)
    def send(self, sent: list[Event]) -> None:
        for event in sent:
            self.ledger.sent[self.source.send(event.body)] = event

    @rule(which=processes, limit=st.integers(1, 10))
    def receive(self, which: int, limit: int) -> None:
        self.processes[which].deliveries += self.source.receive(limit, 0)

    @rule()
    def visibility_ends(self) -> None:
        self.now += VISIBILITY_S + 1

    @rule(which=processes, sent=events, twice=st.booleans(), dies=st.booleans())
    def pass_through(self, which: int, sent: list[Event], twice: bool, dies: bool) -> None:
        """All steps at once, since single ones seldom come in their order; it may die before it settles."""
        self.send(sent)
        self.visibility_ends()
        for _ in range(1 + twice):
            self.receive(which, 10)
            self.now += (VISIBILITY_S + 1) * twice
        self.validate(which)
        self.save(which)
        if dies:
            self.restart(which)
        else:
            self.settle(which)

    @rule(which=processes, sent=events)
    def die_before_settling_and_let_the_other_go_on(self, which: int, sent: list[Event]) -> None:
        self.pass_through(which, sent, twice=False, dies=True)
        self.pass_through(1 - which, [], twice=False, dies=False)

    @rule(which=processes, sent=events, seed=st.integers(0, 9))
    def both_hold_what_was_sent(self, which: int, sent: list[Event], seed: int) -> None:
        self.send(sent)
        self.visibility_ends()
        self.receive(which, 10)
        self.validate(which)
        self.save_both_at_once(seed, None)

    # ── the steps of a process ────────────────────────────────────────────────────────────────────────

    @rule(which=processes)
    def validate(self, which: int) -> None:
        process = self.processes[which]
        process.verdicts += [process.schemas.validate(delivery) for delivery in process.deliveries]
        process.deliveries = []

    @rule(which=processes)
    def save(self, which: int) -> None:
        process = self.processes[which]
        deliveries = [verdict.delivery for verdict in process.verdicts]
        expected = self.ledger.save(deliveries, takes_little=which == TAKES_LITTLE)

        settlements = process.save()

        assert settlements is not None
        assert [settlement.delivery for settlement in settlements] == [v.delivery for v in process.verdicts]
        assert [str(settlement.reason or settlement.outcome) for settlement in settlements] == expected
        process.settlements += settlements
        process.verdicts = []

    @rule(which=processes, fault=st.sampled_from(FAULTS))
    def save_badly(self, which: int, fault: str) -> None:
        self.processes[which].faults.append(fault)
        self._saved(which, self.processes[which].save())

    @rule(seed=st.integers(0, 9), fault=st.sampled_from([None, *FAULTS]))
    def save_both_at_once(self, seed: int, fault: str | None) -> None:
        # What one holds, the other holds too: as after a visibility timeout, and in another order.
        for process, other in (self.processes, self.processes[::-1]):
            more = [process.schemas.validate(_again(verdict.delivery)) for verdict in other.verdicts]
            random.Random(seed).shuffle(more)
            process.verdicts = more + process.verdicts
        if fault is not None:
            self.processes[0].faults.append(fault)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(Process.save, self.processes))
        for which, settlements in enumerate(results):
            self._saved(which, settlements)

    def _saved(self, which: int, settlements: list[Settlement] | None) -> None:
        """Compare what nobody can foretell: the tables say what was committed, and must be allowed to."""
        places = self._places()
        self.ledger.adopt(places)
        process = self.processes[which]
        if settlements is None:
            self.restart(which)
            return
        rows: dict[str, list[str]] = {}
        for delivery_id, place in places:
            rows.setdefault(delivery_id, []).append(place)
        for settlement in settlements:
            found = rows[settlement.delivery.delivery_id]
            match settlement.outcome:
                case "stored":
                    assert "message" in found
                case "duplicate":
                    assert "duplicate" in found
                case "rejected":
                    assert any(place.startswith("rejection") for place in found)
        process.settlements += settlements
        process.verdicts = []
        process.faults.clear()

    @rule(which=processes)
    def settle(self, which: int) -> None:
        process = self.processes[which]
        # A replay has no message on the queue that would be its own.
        self.source.settle([s for s in process.settlements if s.delivery.rejection_id is None])
        process.settlements = []

    @rule(which=processes)
    def restart(self, which: int) -> None:
        """Kill a process, and start another: nothing of what it held is known any more."""
        self.processes[which].store.close()
        self.processes[which] = start_process(self.database_url, which)

    @rule()
    def connections_are_cut(self) -> None:
        ours = "datname = current_database() AND application_name = 'event-processor'"
        self.db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
        wait_until(
            lambda: not self.db.execute(f"SELECT FROM pg_stat_activity WHERE {ours}").fetchall(),
            "all are gone",
        )

    # ── the registry ──────────────────────────────────────────────────────────────────────────────────

    @rule(tenant_id=st.sampled_from(["acme", "globex"]), suspended=st.booleans())
    def suspend_or_resume(self, tenant_id: str, suspended: bool) -> None:
        registry.set_tenant_status(self.db, tenant_id, "suspended" if suspended else "active")
        self.ledger.suspended[tenant_id] = suspended

    @rule(what=st.sampled_from(["tenant", "event type", "strict schema", "lenient schema"]))
    def add_to_the_registry(self, what: str) -> None:
        match what:
            case "tenant":
                registry.add_tenant(self.db, "newcomer")
                self.ledger.suspended.setdefault("newcomer", False)
            case "event type":
                registry.publish_schema(self.db, "order.lost", ORDER_SCHEMA)
                self.ledger.event_types.add("order.lost")
            case _:
                total_max = Decimal("0.5") if what == "strict schema" else Decimal(10**30)
                definition = {"properties": {"total": {"maximum": float(total_max)}}}
                registry.publish_schema(self.db, "order.created", definition, "acme")
                self.ledger.total_max["acme"] = total_max

    # ── meters ────────────────────────────────────────────────────────────────────────────────────────

    @rule(what=st.sampled_from(sorted(METERS)), window_size=st.sampled_from(["hour", "day", "none"]))
    def add_meter(self, what: str, window_size: str) -> None:
        meter, name = METERS[what], f"meter-{len(self.ledger.meters_ever)}"
        if meter.event_type not in self.ledger.event_types or len(self.ledger.meters) == METERS_MAX:
            return
        add_meter(
            self.db,
            name,
            tenant_id=meter.tenant_id,
            event_type=meter.event_type,
            aggregation="sum" if meter.adds else "count",
            value_pointer="/total" if meter.adds else None,
            group_names=["sku"],
            group_pointers=["/sku"],
            window_size=window_size,
        )
        self.ledger.meters_ever.append(name)
        self.ledger.meters[name] = meter

    @rule(place=st.integers(0, 3))
    def retire_meter(self, place: int) -> None:
        for name in sorted(self.ledger.meters)[place : place + 1]:
            self.db.execute("UPDATE meter SET status = 'retired' WHERE meter = %s", [name])
            del self.ledger.meters[name]

    # ── rejections, and old rows ──────────────────────────────────────────────────────────────────────

    @rule(which=processes, limit=st.integers(1, 10))
    def take_rejections(self, which: int, limit: int) -> None:
        self.processes[which].deliveries += QuarantineSource(self.db, EVERYTHING).receive(limit, 0)

    @rule(place=st.integers(0, 5))
    def discard_one(self, place: int) -> None:
        rows = self.db.execute(
            "SELECT rejection_id, delivery_id FROM rejection WHERE status = 'open'"
            " ORDER BY rejection_id OFFSET %s LIMIT 1",
            [place],
        ).fetchall()
        for rejection_id, delivery_id in rows:
            assert discard(self.db, RejectionSelection(rejection_ids=[rejection_id])) == 1
            self.ledger.rejections[delivery_id] = ("discarded", self.ledger.rejections[delivery_id][1])

    @rule()
    def months_pass(self) -> None:
        """All is drained, for no queue holds a message for months; then old rows are removed."""
        self._drain()
        self.db.execute(MONTHS_PASS)
        retention.apply(
            self.db,
            retention.Ages(message=30, duplicate=30, rejection=30, key=28),
            step_size=3,
            pause_s=0,
            stop=threading.Event(),
            statement_timeout_s=20,
        )
        ledger = self.ledger
        closed = [delivery_id for delivery_id, (status, _) in ledger.rejections.items() if status != "open"]
        ledger.removed |= {*ledger.duplicates, *closed}
        ledger.remove_messages()
        ledger.duplicates.clear()
        for delivery_id in closed:
            del ledger.rejections[delivery_id]

    # ── what holds after every step ───────────────────────────────────────────────────────────────────

    @invariant()
    def the_tables_are_what_the_ledger_says(self) -> None:
        if not self.processes:
            return
        places = self._places()
        assert places == self.ledger.places()
        [(total,)] = self.db.execute(
            "SELECT coalesce(sum((payload ->> 'total')::numeric), 0) FROM message"
        ).fetchall()
        assert Fraction(total) == self.ledger.total()
        assert sorted(self.db.execute(USAGE).fetchall()) == self.ledger.usage()
        assert differences(self.db) == []
        taken = [delivery_id for delivery_id, place in places if not place.startswith("rejection replayed")]
        assert len(taken) == len(set(taken)), "a delivery is in two tables"
        lost = self.ledger.sent.keys() - set(taken) - self.source._messages.keys() - self.ledger.removed
        assert not lost, "deleted before it was committed"

    def _places(self) -> list[Place]:
        return sorted(self.db.execute(PLACES).fetchall())

    def _drain(self) -> None:
        for which in range(2):
            self.restart(which)
        self.visibility_ends()
        while any(self.source.depth().values()):
            self.receive(0, 10)
            self.validate(0)
            self.save(0)
            self.settle(0)

    def teardown(self) -> None:
        try:
            if self.processes:
                self._drain()
                self.the_tables_are_what_the_ledger_says()
                report = audit(self.db, [], self.source.depth)
                assert report.holds, report.text()
        finally:
            for process in self.processes:
                process.store.close()


def test_no_history_loses_or_doubles_anything(db: Db, database_url: str) -> None:
    History.db, History.database_url = db, database_url
    Fragile.spare.clear()
    registry.publish_schema(db, "void", {})

    run_state_machine_as_test(
        History,
        settings=settings(max_examples=settings().max_examples // 4, stateful_step_count=30),
    )

    for connection in Fragile.spare:
        connection.close()
