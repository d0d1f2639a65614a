"""Faults of `run --until-idle`: its broker hangs, or one of its processes dies.

    backlog ─▶ broker ✗ ─▶ processor run --until-idle ✗ ─▶ 0: all is stored │ 4: something is left

A hanging broker is not an empty queue: exit code 0 means that all events are counted.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from tests.chaos.field import Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.scenarios.brokers import AcceptedBooks, from_kafka, from_rabbitmq, missing

_IDLE_S = 2
_BACKLOG_S = 6.0
_FINE, _LEFT = 0, 4


def _run_until_idle(field: Field, *words: str) -> list[int]:
    """Let a backlog grow, and begin to drain it slowly, by runs that end when they are idle.

    Gives how much was left at each end with 0, as they come.
    """
    left_at_end: list[int] = []
    field.fleet.stop()
    field.fleet.members.clear()
    field.pause(_BACKLOG_S, _BACKLOG_S)
    field.load.stop()
    field.database.delay_s = 0.03
    field.fleet.command = lambda _: ["processor", "run", "--until-idle", str(_IDLE_S), *words]
    field.fleet.on_fall = lambda code: left_at_end.append(field.left()) if code == _FINE else None
    before = field.left()
    field.fleet.start()
    field.wait_until(lambda: field.left() < before, "the run has begun")
    return left_at_end


def _ends_when_all_is_stored(field: Field, left_at_end: list[int]) -> None:
    """Demand that a run ends with 0, and that nothing was left then, nor at any end with 0 before."""
    field.database.delay_s = 0.0
    seen = len(left_at_end)
    field.wait_until(lambda: len(left_at_end) > seen, "a run ends with 0", wait_s=90)
    if any(left_at_end):
        raise ScenarioFailed(f"runs until idle ended with 0 while so many messages were left: {left_at_end}")


def _frozen(field: Field, freeze: Callable[[], None], thaw: Callable[[], None]) -> None:
    left_at_end = _run_until_idle(field)
    for _ in range(field.rounds):
        field.pause(0.5, 1.5)
        if not field.left():
            raise ScenarioFailed("nothing was left to be frozen: nothing was shown")
        with field.fault():
            freeze()
            try:
                field.pause(_IDLE_S * 3, _IDLE_S * 5)
            finally:
                thaw()
    _ends_when_all_is_stored(field, left_at_end)


def freeze_rabbitmq(field: Field) -> None:
    """Let RabbitMQ fall silent for longer than the run is to be idle."""
    assert field.broker is not None
    _frozen(field, field.broker.freeze, field.broker.thaw)


def freeze_kafka(field: Field) -> None:
    """Let Kafka fall silent for longer than the run is to be idle."""
    assert isinstance(field.books, AcceptedBooks)
    _frozen(field, field.books.tansu.freeze, field.books.tansu.thaw)


def kill_a_child(field: Field) -> None:
    """Kill -9 one child of a supervisor: what it held comes again only after the visibility timeout."""
    left_at_end = _run_until_idle(field, "--processes", "2")
    for _ in range(field.rounds):
        field.pause(0.5, 1.5)
        with field.fault():
            field.wait_until(lambda: bool(field.fleet.workers(0)), "there are children")
            with suppress(ProcessLookupError):
                os.kill(field.chance.choice(field.fleet.workers(0)), signal.SIGKILL)
    _ends_when_all_is_stored(field, left_at_end)


def _scenario(name: str, work: Callable[[Field], None], rounds: int) -> Scenario:
    exits = frozenset({_FINE, _LEFT})
    return Scenario(
        name,
        "idle",
        work,
        rounds,
        processes=1,
        exits=exits,
        settings={"BATCH_SIZE_MAX": "20", "WRITERS": "1"},
    )


SCENARIOS = [
    replace(_scenario("RabbitMQ frozen", freeze_rabbitmq, 3), prepare=from_rabbitmq, needs=missing),
    replace(_scenario("Kafka frozen", freeze_kafka, 3), prepare=from_kafka),
    _scenario("kill -9 of a child", kill_a_child, 6),
]
