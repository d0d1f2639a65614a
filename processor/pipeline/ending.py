"""Describe what a run leaves behind when it ends during an outage or before all was done."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from processor.errors import ProcessorError
from processor.runtime.outages import OutageRetry

_COUNT_S_MAX = 3.0
"""The time limit for counting the queue at a stop, since an orchestrator may be waiting."""

GIVE_UP_S = 1.0
"""The time limit for joining all workers of one kind after `give_up` is set."""

_JOIN_TICK_S = 0.2

_LATE_S = 2.0
"""How far a receive may exceed its wait time before the queue counts as silent."""


def left_behind(
    retries: Sequence[OutageRetry],
    count: Callable[[], Mapping[str, int]],
    *,
    given_back: int,
    asked_for_s: float | None,
) -> str:
    """Return what keeps a run from being done, as text; empty if it is done.

    `retries` are the retries of its dependencies, the queue's last. `count` counts the messages of the queue,
    `given_back` is the number of released deliveries, and `asked_for_s` the wait time of a receive call that
    has not returned (None: all have).
    """
    broker = retries[-1]
    found = [
        f"{retry.dependency}: {retry.trouble or 'unavailable'}"
        for retry in retries
        if not retry.working.is_set()
    ]
    silent = asked_for_s is not None and _silent_s(broker) > asked_for_s + _LATE_S
    if given_back:
        found.append(f"{given_back} deliveries were given back unsettled")
    if not found and not silent:
        return ""
    counted = None if silent or not broker.working.is_set() else _counted(count)
    if counted is None:
        found.append(f"the queue has not answered since {_moment(broker.answered_at)}")
    else:
        found.append(
            f"the queue counts {', '.join(f'{number} {state}' for state, number in counted.items())}"
        )
    return "; ".join(found)


def _silent_s(broker: OutageRetry) -> float:
    return time.monotonic() - (broker.recovered_at if broker.answered_at is None else broker.answered_at)


def _counted(count: Callable[[], Mapping[str, int]]) -> Mapping[str, int] | None:
    """Count the queue in a thread, because a call to a silent queue may exceed the time limit."""
    found: list[Mapping[str, int]] = []

    def ask() -> None:
        try:
            found.append(count())
        except ProcessorError:
            # Without a count, the caller reports that the queue has not answered.
            return

    asking = threading.Thread(target=ask, name="left", daemon=True)
    asking.start()
    asking.join(_COUNT_S_MAX)
    return found[0] if found else None


def _moment(at: float | None) -> str:
    if at is None:
        return "the start"
    moment = datetime.now(UTC) - timedelta(seconds=time.monotonic() - at)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def join_all(workers: Sequence[threading.Thread], give_up: threading.Event) -> None:
    """Wait for workers to end, after `give_up` is set for GIVE_UP_S at most."""
    for worker in workers:
        while worker.is_alive() and not give_up.is_set():
            worker.join(_JOIN_TICK_S)
    give_up_at = time.monotonic() + GIVE_UP_S
    for worker in workers:
        worker.join(max(0.0, give_up_at - time.monotonic()))
