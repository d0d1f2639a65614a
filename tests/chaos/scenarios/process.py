"""Faults of processes: kills, stops, freezes, limits, and a start before the servers are available."""

import re
import signal
import time
from pathlib import Path

from producers.fake.events import EventForm, FakeEvent, encode
from producers.publishers.outgoing import Outgoing
from tests.bench.figures.measures import tree
from tests.chaos.field import SETTINGS, Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.victims.dying import COMMITTED, NOTHING_COMMITTED

_MEMORY_LEFT_MIB = 2
_LARGE_BYTES = 900_000
_VISIBILITY_S = float(SETTINGS["VISIBILITY_TIMEOUT_S"])
_STOP_S_MAX = float(SETTINGS["STOP_TIMEOUT_S"]) + 4
"""What a stop may take: STOP_TIMEOUT_S, and the release of what is held then."""

_WORK_LEFT = 4


def kill_two_of_four(field: Field) -> None:
    """Kill -9 in a loop, two of four processes, so that the others meet what the dead have left behind."""
    for _ in range(field.rounds):
        field.pause(0.2, 1.2)
        with field.fault():
            field.fleet.kill(field.chance.randrange(2))


def kill_at_each_step(field: Field) -> None:
    """Let one of two processes die before and after each step of the pipeline, one after the other."""
    places = [*NOTHING_COMMITTED, *COMMITTED]
    field.chance.shuffle(places)
    armed: list[str] = []

    def command(place: int) -> list[str]:
        return (
            ["tests.chaos.victims.dying", armed.pop(), "run"]
            if place == 0 and armed
            else ["processor", "run"]
        )

    field.fleet.command = command
    for place in places[: field.rounds]:
        armed.append(place)
        field.fleet.kill(0)
        fallen = len(field.fleet.falls)
        with field.fault():
            field.wait_until(
                lambda fallen=fallen: len(field.fleet.falls) > fallen,  # type: ignore[misc]
                f"a process dies {place}",
            )


def kill_the_supervisor(field: Field) -> None:
    """Kill the supervisor of several processes with -9: its children end by themselves."""
    field.fleet.command = lambda _: ["processor", "run", "--processes", "2"]
    for _ in range(field.rounds):
        field.fleet.kill(0)
        field.pause(2, 4)
        with field.fault():
            field.fleet.kill(0)


def terminate(field: Field) -> None:
    """SIGTERM at random moments, once or twice, half of them with a full buffer before a slow database."""
    for _ in range(field.rounds):
        field.wait_until(lambda: field.fleet.ready(0)[0] == 200, "the process is ready")
        if field.chance.random() < 0.5:
            field.database.delay_s = 0.3
            field.wait_until(lambda: field.held(0) >= int(_BUFFER), "the buffer is full")
        field.pause(0, 0.5)
        with field.fault():
            _end_in_time(field, times=field.chance.choice((1, 2)))
            field.heal()


def terminate_while_polling(field: Field) -> None:
    """SIGTERM during a long poll, which nothing but its own end wakes."""
    for _ in range(field.rounds):
        field.wait_until(lambda: field.fleet.ready(0)[0] == 200, "the process is ready")
        field.pause(0.3, 1)
        with field.fault():
            _end_in_time(field, times=1)


def _end_in_time(field: Field, *, times: int) -> None:
    began_at = time.monotonic()
    code = field.fleet.terminate(0, times=times)
    took_s = time.monotonic() - began_at
    # Told twice, or where it takes too long, it leaves to the queue what it holds, and says so.
    may_leave = times > 1 or took_s >= float(SETTINGS["STOP_TIMEOUT_S"])
    if code not in ((0, _WORK_LEFT) if may_leave else (0,)) or took_s > _STOP_S_MAX:
        raise ScenarioFailed(
            f"a stop took {took_s:.1f} s and ended with {code}; expected 0 in {_STOP_S_MAX} s"
        )


def freeze(field: Field) -> None:
    """SIGSTOP for longer than the visibility timeout: others take over, then the frozen one wakes."""
    for _ in range(field.rounds):
        field.pause(0.5, 1.5)
        place = field.chance.randrange(len(field.fleet.members))
        with field.fault():
            field.fleet.signal(place, signal.SIGSTOP)
            field.pause(_VISIBILITY_S + 0.5, _VISIBILITY_S + 2)
            field.fleet.signal(place, signal.SIGCONT)


def run_out_of_memory(field: Field) -> None:
    """Leave a process too little memory for large bodies, and send some; later give it enough."""
    process = field.fleet.members[0].process
    assert process is not None
    # Of its worker: the supervisor before it has hardly anything of its own.
    limit_mib = max(_writable_mib(each) for each in tree(process.pid)) + _MEMORY_LEFT_MIB
    field.fleet.command = lambda _: ["tests.chaos.victims.limited", str(limit_mib), "run"]
    for place in range(len(field.fleet.members)):
        field.fleet.kill(place)
    with field.fault():
        for number in range(field.rounds * 10):
            field.load.also(_a_large_event(number))
        for _ in range(field.rounds):
            fallen = len(field.fleet.falls)
            field.wait_until(
                lambda fallen=fallen: len(field.fleet.falls) > fallen,  # type: ignore[misc]
                "a process runs out of memory",
            )
            field.faults += 1
        field.fleet.command = lambda _: ["processor", "run"]
        for place in range(len(field.fleet.members)):
            field.fleet.kill(place)


def _writable_mib(pid: int) -> int:
    found = re.search(r"VmData:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def _a_large_event(number: int) -> Outgoing:
    event = FakeEvent(
        tenant_id="acme",
        event_type="order.created",
        message_id=f"large-{number}",
        producer="shop",
        occurred_at="2026-11-22T10:00:00Z",
        payload={"note": "x" * _LARGE_BYTES},
    )
    return encode(event, EventForm.NATIVE, kind="large")


def start_without_servers(field: Field) -> None:
    """Start while the database, the queue or both are absent: it is said on /readyz, and waited for."""
    for number in range(field.rounds):
        absent = ("database", "queue", "database and queue")[number % 3]
        if "database" in absent:
            field.database.refuse()
        if "queue" in absent:
            field.queue.refuse()
        with field.fault():
            for place in range(len(field.fleet.members)):
                field.fleet.kill(place)
            word = absent.split()[0]
            field.wait_until(
                lambda word=word: word in field.fleet.ready(0)[1],  # type: ignore[misc]
                f"/readyz says that the {word} is away",
            )
            field.pause(0.5, 2)
            field.heal()
        field.wait_until(lambda: field.fleet.ready(0)[0] == 200, "the process is ready")
        field.wait_until_recovered()


_BUFFER = "40"

SCENARIOS = [
    Scenario(
        "kill -9 at each step",
        "process",
        kill_at_each_step,
        rounds=len(NOTHING_COMMITTED + COMMITTED),
        exits=frozenset({-9}),
    ),
    Scenario(
        "kill -9 in a loop, two of four", "process", kill_two_of_four, rounds=40, rounds_short=5, processes=4
    ),
    Scenario("kill -9 of a supervisor", "process", kill_the_supervisor, rounds=6, processes=1),
    Scenario(
        "SIGTERM, once or twice, buffer full or not",
        "process",
        terminate,
        rounds=12,
        rounds_short=3,
        settings={"BUFFER_SIZE_MAX": _BUFFER},
    ),
    Scenario("SIGTERM during a long poll", "process", terminate_while_polling, rounds=8, rate=5),
    Scenario("SIGSTOP beyond the visibility timeout", "process", freeze, rounds=6, rounds_short=1),
    Scenario("memory limit", "process", run_out_of_memory, rounds=5, exits=frozenset({1, -6, -11})),
    Scenario("start without database or queue", "process", start_without_servers, rounds=6),
]
