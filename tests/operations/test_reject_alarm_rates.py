"""The alarm of rejections: when it begins and ends, what counts, and that nobody can make it grow."""

from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from processor.errors import Reason
from processor.model import EventSchema, Message, Outcome, Registry, Rejection, Settlement, Verdict
from processor.operations.reject_alarm import RejectAlarm, RejectAlarmLimits, replay_command, words
from processor.runtime import metrics
from processor.validation.validator import Schemas
from processor.wire.formats import Claimed
from tests.builders import a_delivery

LIMITS = RejectAlarmLimits(share=0.2, count_min=10, window_s=100)


@pytest.fixture(autouse=True)
def all_is_logged() -> None:
    """Whatever level a command of another test has set."""
    structlog.reset_defaults()


class Bench:
    """An alarm on a clock of ours, with what it has logged."""

    def __init__(self, *, tenants: int = 1) -> None:
        self.now = 0.0
        self.schemas = Schemas(body_bytes_max=1024, json_depth_max=10)
        suspended = {"acme": False} | {f"tenant-{place}": False for place in range(tenants)}
        self.schemas.install(Registry(1, suspended, (EventSchema(1, "order.created", None, 1, "{}"),)))
        self.alarm = RejectAlarm(LIMITS, self.schemas.registered, lambda: self.now)
        self.logged: list[Any] = []

    def note(self, *outcomes: tuple[Verdict, Settlement]) -> None:
        with structlog.testing.capture_logs() as logs:
            self.alarm.note([verdict for verdict, _ in outcomes], [settlement for _, settlement in outcomes])
            self.alarm.look()
        self.logged += logs

    def look(self, at: float) -> None:
        self.now = at
        with structlog.testing.capture_logs() as logs:
            self.alarm.look()
        self.logged += logs

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.logged]


def a_stored(
    count: int = 1, outcome: Outcome = Outcome.STORED, tenant_id: str = "acme"
) -> list[tuple[Verdict, Settlement]]:
    """Outcomes of valid events."""
    delivery = a_delivery()
    message = Message(delivery, 1, tenant_id, "m", "", "order.created", 1, None, "{}", None)
    return [(message, Settlement(delivery, outcome))] * count


def a_rejected(
    count: int = 1,
    reason: Reason = Reason.SCHEMA_VIOLATION,
    outcome: Outcome = Outcome.REJECTED,
    **claims: str | None,
) -> list[tuple[Verdict, Settlement]]:
    """Outcomes of bad events."""
    delivery = a_delivery()
    claimed = Claimed(**{"tenant_id": "acme", "event_type": "order.created"} | claims)
    rejection = Rejection(delivery, 1, reason, {}, claimed)
    return [(rejection, Settlement(delivery, outcome, reason))] * count


def gauge() -> float:
    return float(metrics.reject_alarms._value.get())


@pytest.mark.parametrize(
    ("stored", "rejected", "begins"), [(8, 2, True), (9, 2, False), (0, 10, True), (0, 9, False)]
)
def test_it_begins_at_the_share_and_the_count(stored: int, rejected: int, begins: bool) -> None:
    bench = Bench()

    bench.note(*a_stored(stored), *a_rejected(rejected))

    assert bench.events == ["reject_alarm"] * begins
    assert gauge() == begins


def test_it_says_which_pair_and_what_to_type_once_mended() -> None:
    bench = Bench()

    bench.note(*a_stored(6), *a_rejected(4))

    [entry] = bench.logged
    assert entry == {
        "event": "reject_alarm",
        "log_level": "warning",
        "tenant_id": "acme",
        "event_type": "order.created",
        "rejected": 4,
        "deliveries": 10,
        "window_s": 100,
        "once_mended": "processor rejection replay --tenant acme --event-type order.created",
    }


def test_it_is_said_once_when_it_begins_and_once_when_it_ends() -> None:
    bench = Bench()

    for at in range(0, 90, 5):
        bench.now = at
        bench.note(*a_rejected(5), *a_stored(5))
    assert bench.events == ["reject_alarm"]
    assert gauge() == 1

    for at in range(90, 300, 5):
        bench.now = at
        bench.note(*a_stored(10))
    assert bench.events == ["reject_alarm", "reject_alarm_over"]
    assert gauge() == 0


def test_it_ends_while_nothing_comes() -> None:
    bench = Bench()
    bench.note(*a_rejected(10))

    bench.look(at=99)
    assert bench.events == ["reject_alarm"]

    bench.look(at=100)
    assert bench.events == ["reject_alarm", "reject_alarm_over"]


def test_it_does_not_flutter_around_its_limit() -> None:
    bench = Bench()
    bench.note(*a_stored(80), *a_rejected(20))

    for _ in range(20):
        bench.note(*a_stored(4))
        bench.note(*a_rejected(1))

    assert bench.events == ["reject_alarm"]


def test_of_a_batch_the_worst_moment_is_not_taken_for_the_window() -> None:
    bench = Bench()
    bench.note(*a_stored(1000))

    bench.now = 95
    bench.note(*a_rejected(100))

    assert bench.events == []


@pytest.mark.parametrize("outcome", [Outcome.DUPLICATE, Outcome.REDELIVERED])
def test_duplicates_and_redeliveries_count_nowhere(outcome: Outcome) -> None:
    bench = Bench()

    bench.note(*a_stored(1000, outcome), *a_rejected(100, outcome=Outcome.REDELIVERED))
    assert bench.events == []

    bench.note(*a_rejected(10))
    assert bench.logged[0]["deliveries"] == 10


@pytest.mark.parametrize("reason", [Reason.TENANT_SUSPENDED, Reason.DEAD_LETTERED])
def test_what_a_person_asked_for_is_no_alarm(reason: Reason) -> None:
    bench = Bench()

    bench.note(*a_rejected(100, reason))

    assert bench.events == []


def test_what_the_database_judged_otherwise_counts_as_what_it_became() -> None:
    """A tenant was added after the verdict; an id was taken, which no verdict knows."""
    bench = Bench()
    added = a_rejected(8, Reason.UNKNOWN_TENANT, Outcome.STORED)
    taken = a_stored(2, Outcome.REJECTED)

    bench.note(*added, *[(verdict, replace(said, reason=Reason.ID_CONFLICT)) for verdict, said in taken])

    assert (bench.logged[0]["rejected"], bench.logged[0]["deliveries"]) == (2, 10)


def test_pairs_are_looked_at_each_by_itself() -> None:
    bench = Bench()

    bench.note(*a_stored(1000, tenant_id="tenant-0"), *a_rejected(10))

    assert [entry["tenant_id"] for entry in bench.logged] == ["acme"]


def test_what_is_not_registered_is_counted_together_and_never_named() -> None:
    bench = Bench()

    for place in range(10):
        bench.note(
            *a_rejected(1, Reason.UNKNOWN_TENANT, tenant_id=f"made-up-{place}"),
            *a_rejected(1, Reason.UNKNOWN_EVENT_TYPE, event_type=f"made.up.{place}"),
            *a_rejected(1, Reason.NOT_JSON, tenant_id=None, event_type=None),
        )

    assert "made" not in str(bench.logged)
    assert [(entry["tenant_id"], entry["event_type"], entry["once_mended"]) for entry in bench.logged] == [
        (None, None, "processor rejection stats"),
        ("acme", None, "processor rejection replay --tenant acme"),
    ]
    assert gauge() == 2


def test_memory_is_bounded_by_the_window_and_the_registered_pairs() -> None:
    bench = Bench(tenants=3)

    for at in range(1000):
        bench.now = float(at)
        bench.note(*a_rejected(1, tenant_id=f"made-up-{at}"), *a_stored(1, tenant_id=f"tenant-{at % 3}"))

    assert len(bench.alarm._steps) <= 11
    assert max(len(step.stored) + len(step.rejected) for step in bench.alarm._steps) <= 3 + 1


@pytest.mark.parametrize(
    ("pair", "command"),
    [
        (("a b", "x;y"), "processor rejection replay --tenant 'a b' --event-type 'x;y'"),
        (("acme", None), "processor rejection replay --tenant acme"),
        ((None, None), "processor rejection stats"),
    ],
)
def test_the_command_can_be_typed_as_it_is(pair: tuple[str | None, str | None], command: str) -> None:
    assert replay_command(pair) == command
    assert words(pair, 3, 4, 300).endswith(f"(75%); once mended: {command}")
