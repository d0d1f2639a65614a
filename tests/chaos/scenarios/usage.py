"""Faults in the hand-over of usage: dispatchers die, the sink fails, meters are added and removed."""

from collections.abc import Callable
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psycopg

from processor.devstack.servers.sink import GOOD, Behaviour, Line, Receiver, SinkRequest
from processor.usage.rebuild import rebuild
from processor.usage.selection import TotalsSelection
from processor.usage.verify import verify
from tests.chaos.field import BILLING_LOGIN, DATABASE, Field, ScenarioFailed
from tests.chaos.hand_over import SINK_TIMEOUT_S, HandOver, hand_over
from tests.chaos.run import Scenario
from tests.chaos.victims.dying_dispatch import PLACES

_TRIED_MIN = 2


def kill_between_steps(field: Field) -> None:
    """Let one of two dispatchers die before and after each step, while late events keep coming."""
    places = list(PLACES)
    field.chance.shuffle(places)
    armed: list[str] = []

    def command(place: int) -> list[str]:
        dying = place == 0 and armed
        return (
            ["tests.chaos.victims.dying_dispatch", armed.pop(), "dispatch"]
            if dying
            else ["processor", "dispatch"]
        )

    def work(here: HandOver) -> None:
        for place in places[: field.rounds]:
            armed.append(place)
            here.dispatchers.kill(0)
            fallen = len(here.dispatchers.falls)
            with field.fault():
                field.wait_until(
                    lambda fallen=fallen: len(here.dispatchers.falls) > fallen,  # type: ignore[misc]
                    f"a dispatcher dies {place}",
                )

    hand_over(field, work, command=command)


def kill_side_by_side(field: Field) -> None:
    """Kill -9 in a loop, any of four dispatchers, while a slow sink has requests under way."""

    def work(here: HandOver) -> None:
        here.sink.behaviour = Behaviour(wait_s=0.1)
        for _ in range(field.rounds):
            field.pause(0.1, 0.6)
            with field.fault():
                here.dispatchers.kill(field.chance.randrange(len(here.dispatchers.members)))

    hand_over(field, work, dispatchers=4)


def fail(field: Field) -> None:
    """Let the sink fail: errors with and without having taken the lines, hung-up connections, no answer."""

    def work(here: HandOver) -> None:
        faults = [
            *(Behaviour(status=status, accepts=taken) for status in (500, 503) for taken in (True, False)),
            Behaviour(status=429, accepts=False, headers={"Retry-After": "1"}),
            *(Behaviour(drops=True, accepts=taken) for taken in (True, False)),
            None,
        ]
        for place in range(field.rounds):
            fault = faults[place % len(faults)]
            if fault is None:
                _hang_up(field, here)
            else:
                _misbehave(field, here.sink, fault)

    hand_over(field, work)


def answer_late(field: Field) -> None:
    """Let the sink answer after the dispatcher has given up, with the lines taken, or not."""

    def work(here: HandOver) -> None:
        for place in range(field.rounds):
            status = 500 if place % 3 == 2 else 200
            wait_s = field.chance.uniform(1.2, 3) * SINK_TIMEOUT_S
            _misbehave(field, here.sink, Behaviour(status, accepts=status == 200, wait_s=wait_s))

    hand_over(field, work)


def answer_wrongly(field: Field) -> None:
    """Let the sink answer garbage, redirects, and yes to some lines only."""
    chance = field.chance
    garbage = (b"<html>welcome</html>", b"\xff\xfe\x00", b'{"results": [{}]}', b"[" * 9999)

    def some(line: Line) -> int:
        return 200 if int(line["key"], 16) % 3 else chance.choice((400, 422, 500))

    def spoilt(line: Line) -> bool:
        return int(line["key"], 16) % 5 == 0

    def work(here: HandOver) -> None:
        faults = [
            *(Behaviour(body=body, accepts=taken) for body in garbage for taken in (True, False)),
            # Any JSON that speaks of no line says yes.
            Behaviour(body=b'{"results": "all"}'),
            *(
                Behaviour(status, accepts=False, headers={"Location": "http://127.0.0.1:9/elsewhere"})
                for status in (301, 302, 307)
            ),
            Behaviour(207, statuses=some),
            Behaviour(refuses_batch_with=spoilt),
            Behaviour(207, accepts=False),
            Behaviour(413, accepts=False),
        ]
        chance.shuffle(faults)
        for place in range(field.rounds):
            _misbehave(field, here.sink, faults[place % len(faults)])

    hand_over(field, work)


def hear_twice(field: Field) -> None:
    """Let a network deliver requests twice: old ones come again, whole, under the same key."""

    def work(here: HandOver) -> None:
        for _round in range(field.rounds):
            field.pause(0.1, 0.4)
            with field.fault():
                _deliver(here.sink, field.chance.choice(here.sink.requests))
        if here.sink.books.doubled < field.rounds:
            raise ScenarioFailed("the sink has not seen any line twice")

    hand_over(field, work)


def change_meters(field: Field) -> None:
    """Add meters, rebuild what was before them, and retire them, while all is counted and handed over."""

    def work(here: HandOver) -> None:
        url = field.postgres.url(DATABASE, user=BILLING_LOGIN)
        with field.admin() as admin, psycopg.connect(url, autocommit=True) as billing:
            for place in range(field.rounds):
                field.pause(0.3, 1)
                with field.fault():
                    _add_meter(admin, f"chaos-{place}")
                    field.pause(0.2, 0.6)
                    rebuild(billing, TotalsSelection(meter=f"chaos-{place // 2}"))
                    rebuild(billing, TotalsSelection(meter="pulse"))
                    if place % 3 == 2:
                        admin.execute(
                            "UPDATE meter SET status = 'retired' WHERE meter = %s", (f"chaos-{place - 1}",)
                        )
                report = verify(billing)
                if not report.holds:
                    raise ScenarioFailed(f"under load:\n{report.text()}")

    hand_over(field, work)


def _add_meter(admin: psycopg.Connection[object], name: str) -> None:
    what = {
        "0": ("pulse", None, ["sku"], ["/product_sku"]),
        "1": ("payment.captured", "/amount", ["currency"], ["/currency"]),
        "2": ("order.created", "/total", [], []),
    }[str(int(name.rpartition("-")[2]) % 3)]
    admin.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers,"
        " window_size, grace, is_handed_over)"
        " VALUES (%s, %s, CASE WHEN %s::text IS NULL THEN 'count' ELSE 'sum' END, %s, %s::text[], %s::text[],"
        " 'day', '0', true)",
        (name, what[0], what[1], what[1], what[2], what[3]),
    )


def _misbehave(field: Field, sink: Receiver, fault: Behaviour) -> None:
    """Let the sink do so for some requests, and be good again for some."""
    seen = len(sink.requests)
    with field.fault():
        sink.behaviour = fault
        field.wait_until(lambda: len(sink.requests) >= seen + _TRIED_MIN, f"the sink was asked while {fault}")
        field.pause(0, 0.5)
        sink.behaviour = GOOD
    field.wait_until(takes_more(sink), "the sink takes lines again")


def _hang_up(field: Field, here: HandOver) -> None:
    """Let nobody reach the sink for a while; half of the time packets are swallowed."""
    with field.fault():
        field.chance.choice((here.way.refuse, here.way.fall_silent))()
        field.pause(0.5, 1.5)
        here.way.heal()
    field.wait_until(takes_more(here.sink), "the sink takes lines again")


def takes_more(sink: Receiver) -> Callable[[], bool]:
    before = len(sink.books.lines)
    return lambda: len(sink.books.lines) > before


def _deliver(sink: Receiver, request: SinkRequest) -> None:
    parts = urlsplit(sink.url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("POST", parts.path, request.body, {"Idempotency-Key": request.key})
    connection.getresponse().read()
    connection.close()


_KILLED = frozenset({-9})

SCENARIOS = [
    Scenario(
        "a dispatcher killed between every step",
        "usage",
        kill_between_steps,
        rounds=len(PLACES),
        rounds_short=3,
        processes=1,
        exits=_KILLED,
    ),
    Scenario("four dispatchers killed side by side", "usage", kill_side_by_side, rounds=30, processes=1),
    Scenario("the sink fails", "usage", fail, rounds=24, processes=1),
    Scenario("the sink answers late", "usage", answer_late, rounds=12, processes=1),
    Scenario("the sink answers wrongly", "usage", answer_wrongly, rounds=34, processes=1),
    Scenario("the sink hears everything twice", "usage", hear_twice, rounds=60, processes=1),
    Scenario("meters added, rebuilt and retired", "usage", change_meters, rounds=9, processes=2),
]
