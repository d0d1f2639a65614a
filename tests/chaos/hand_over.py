"""Dispatchers and a sink in the environment of a scenario: windows close as soon as events are counted.

The events of the load occurred hours ago, so their windows are due at once, and later events are late: nearly
each line is a revision of another.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from processor.devstack.servers.sink import GOOD, Receiver
from tests.chaos.field import BILLING_LOGIN, Field, ScenarioFailed, environment
from tests.chaos.fleet import Fleet
from tests.chaos.sink_books import WAITING
from tests.chaos.traffic.tcp_proxy import TcpProxy

SINK_TIMEOUT_S = 0.5
_SETTINGS = {
    "USAGE_DISPATCH_EVERY_S": "0.1",
    # So few that batches are many.
    "USAGE_SINK_LINES_MAX": "7",
    "USAGE_SINK_TIMEOUT_S": str(SINK_TIMEOUT_S),
    "USAGE_SINK_REFUSED_WAIT_S_MAX": "1",
    "RETRY_WAIT_S_MAX": "0.5",
    "DATABASE_TIMEOUT_S": "3",
    "LOG_LEVEL": "INFO",
}
_LINES_MIN = 20


@dataclass(frozen=True, slots=True)
class HandOver:
    """Those who hand over, the sink, and the proxy between them."""

    dispatchers: Fleet
    sink: Receiver
    way: TcpProxy


def hand_over(
    field: Field,
    work: Callable[[HandOver], None],
    *,
    dispatchers: int = 2,
    command: Callable[[int], list[str]] = lambda _: ["processor", "dispatch"],
) -> None:
    """Run a scenario's work while usage is handed over; then heal, end the load, wait until nothing waits.

    What the sink has is judged by the oracle.
    """
    with _here(field, dispatchers) as here:
        here.dispatchers.command = command
        here.dispatchers.start()
        field.wait_until(lambda: len(here.sink.books.lines) >= _LINES_MIN, "the sink has the first lines")
        work(here)
        here.sink.behaviour = GOOD
        here.way.heal()
        field.heal()
        field.load.stop()
        source = field.source()
        field.wait_until(lambda: not sum(source.depth().values()), "the queue is empty", wait_s=90)
        field.wait_until(lambda: _nothing_waits(field), "nothing waits to be handed over", wait_s=60)
        if not any(line["revision"] > 1 for line in here.sink.books.lines.values()):
            raise ScenarioFailed("no window was changed after it had been handed over")


@contextlib.contextmanager
def _here(field: Field, dispatchers: int) -> Iterator[HandOver]:
    with Receiver() as sink, contextlib.closing(TcpProxy(urlsplit(sink.url).port or 0)) as way:
        settings = _SETTINGS | {"USAGE_SINK_URL": f"http://127.0.0.1:{way.port}/usage"}
        fleet = Fleet(
            dispatchers,
            environment(field.database, field.queue, field.queue_url, BILLING_LOGIN) | settings,
            field.folder / "dispatch.log",
        )
        field.sink, field.dispatchers = sink, fleet
        try:
            yield HandOver(fleet, sink, way)
        finally:
            fleet.stop()
            # What is waited for from now on is not their work, and nobody is to start them again.
            fleet.members.clear()


def _nothing_waits(field: Field) -> bool:
    with field.admin() as admin:
        return admin.execute(WAITING).fetchone() == (0,)
