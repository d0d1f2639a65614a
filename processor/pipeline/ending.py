"""What a run leaves behind when it ends, in words: nothing, unless it ends in an outage or too soon."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from processor.errors import ProcessorError
from processor.runtime.outages import OutageRetry

_COUNT_S_MAX = 3.0
"""For how long a queue is asked what it still has; an orchestrator waits for us meanwhile."""

GIVE_UP_S = 1.0
"""For how long the workers of one kind are waited for together, once told to give up."""

_JOIN_TICK_S = 0.2

_LATE_S = 2.0
"""How much later than its wait a receive may come back before the queue counts as silent."""


def left_behind(
    retries: Sequence[OutageRetry],
    count: Callable[[], Mapping[str, int]],
    *,
    given_back: int,
    asked_for_s: float | None,
) -> str:
    """Say what keeps a run from being done; empty if it is done.

    `retries` retried outages of its dependencies, the queue's last. `count` asks the queue
    for what it has, `given_back` are deliveries that had to be, and `asked_for_s` is the wait of a receive
    that has not come back (None: all have).
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
    """Ask the queue for what it has, in a thread: one call to a silent queue may take longer than we have."""
    found: list[Mapping[str, int]] = []

    def ask() -> None:
        try:
            found.append(count())
        except ProcessorError:
            # That it does not say is what is said then.
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
    """Wait for workers to end; once told to give up, only for as long as workers need to notice."""
    for worker in workers:
        while worker.is_alive() and not give_up.is_set():
            worker.join(_JOIN_TICK_S)
    give_up_at = time.monotonic() + GIVE_UP_S
    for worker in workers:
        worker.join(max(0.0, give_up_at - time.monotonic()))
