"""Reading is charged to whose it is: who uses much waits for who uses little, and then is refused unread."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from producers.gateway.effort import LIGHT, Effort
from producers.gateway.items import Refusal, Why
from tests.gateway.taking import TEST_S, run

HEAVY = LIGHT + 1


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Make work of so many seconds of CPU, by a clock of each thread that only it moves on."""
    used = threading.local()
    monkeypatch.setattr("time.thread_time", lambda: getattr(used, "s", 0.0))

    def of(seconds: float) -> Callable[[], None]:
        def work() -> None:
            used.s = getattr(used, "s", 0.0) + seconds

        return work

    return of


def thread() -> str:
    return threading.current_thread().name


def test_what_is_light_is_done_on_the_loop_and_what_may_be_dear_beside_it() -> None:
    async def both() -> list[Any]:
        effort = Effort()
        return [await effort.do("acme", weight, thread) for weight in (LIGHT, HEAVY)]

    light, heavy = run(both())

    assert light == thread()
    assert heavy.startswith("reading")


def test_who_has_used_much_lately_is_read_beside_the_loop_be_it_ever_so_light(clock: Clock, cpu: Any) -> None:
    async def all_of_it() -> list[Any]:
        effort = Effort(0.5, clock=clock)
        await effort.do("acme", 1, cpu(0.6))
        return [await effort.do(holder, 1, thread) for holder in ("acme", "globex")]

    acme, globex = run(all_of_it())

    assert acme.startswith("reading")
    assert globex == thread()


@pytest.mark.parametrize("weight", [1, HEAVY])
def test_who_owes_is_refused_unread_until_it_is_paid(weight: int, clock: Clock, cpu: Any) -> None:
    async def all_of_it() -> list[Any]:
        effort = Effort(0.5, clock=clock)
        await effort.do("acme", weight, cpu(3.0))
        refused = [effort.owing("acme"), await effort.do("acme", weight, lambda: pytest.fail("it was read"))]
        others = [effort.owing("globex"), await effort.do("globex", weight, lambda: "read")]
        told = await effort.finish("acme", weight, lambda: "told")
        clock.now_s += 4
        return [
            *refused,
            *others,
            told,
            effort.owing("acme"),
            await effort.do("acme", weight, lambda: "read"),
        ]

    first, second, *rest = run(all_of_it())

    assert isinstance(first, Refusal)
    assert (first.why, first.retry_after_s) == (Why.OVER_QUOTA, 4)
    assert second == first
    assert rest == [None, "read", "told", None, "read"], "what was taken is told of whatever it costs"


def test_what_fails_is_charged_and_raised(clock: Clock, cpu: Any) -> None:
    def failing() -> None:
        cpu(5.0)()
        raise ValueError("no JSON")

    async def all_of_it() -> tuple[Any, Any]:
        effort = Effort(0.5, clock=clock)
        for holder, weight in (("light", 1), ("heavy", HEAVY)):
            with pytest.raises(ValueError, match="no JSON"):
                await effort.do(holder, weight, failing)
        return effort.owing("light"), effort.owing("heavy")

    assert all(run(all_of_it()))


class Gate:
    """Work that waits for us, so that others come to wait for it."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        self.opened.wait(TEST_S)


def test_whoever_used_least_goes_first_and_among_equals_each_in_its_turn(clock: Clock, cpu: Any) -> None:
    order: list[str] = []

    def reading(holder: str) -> Callable[[], None]:
        def work() -> None:
            order.append(holder)
            cpu(0.01)()

        return work

    async def all_of_it() -> None:
        effort, gate = Effort(1.0, clock=clock), Gate()
        await effort.do("hostile", HEAVY, cpu(0.9))
        tasks = [asyncio.create_task(effort.do("hostile", HEAVY, gate))]
        await asyncio.to_thread(gate.entered.wait, TEST_S)
        tasks += [
            asyncio.create_task(effort.do(holder, HEAVY, reading(holder)))
            for holder in ["hostile"] * 5 + ["acme"] * 2 + ["globex"] * 2
        ]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(*tasks)

    run(all_of_it())

    assert order == ["acme", "globex"] * 2 + ["hostile"] * 5


def test_who_goes_away_while_it_waits_or_is_read_keeps_nobody_and_is_charged(clock: Clock, cpu: Any) -> None:
    gate = Gate()

    def dear() -> None:
        cpu(9.0)()
        gate()

    async def all_of_it() -> tuple[Any, Any]:
        effort = Effort(0.5, clock=clock)
        read = asyncio.create_task(effort.do("acme", HEAVY, dear))
        await asyncio.to_thread(gate.entered.wait, TEST_S)
        waiting = asyncio.create_task(effort.do("globex", HEAVY, lambda: pytest.fail("it was read")))
        last = asyncio.create_task(effort.do("initech", HEAVY, lambda: "read"))
        await asyncio.sleep(0)
        for task in (read, waiting):
            task.cancel()
        await asyncio.gather(read, waiting, return_exceptions=True)
        assert not last.done(), "there is one thread"
        gate.opened.set()
        return await last, effort.owing("acme")

    found, owing = run(all_of_it())

    assert found == "read"
    assert owing is not None
