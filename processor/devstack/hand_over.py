"""The demo's hand-over: windows are closed and handed over to a local sink, and both sums are compared.

processor usage close ─▶ dispatch --once ─▶ Receiver ─▶ usage verify ─▶ its sums = those of the tables?
"""

import contextlib
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from processor.database.queries import queries
from processor.devstack.report import Printer
from processor.devstack.servers.children import DevstackError, uninterrupted
from processor.devstack.servers.sink import Group, Receiver
from processor.devstack.stack import Stack

STEP_S = 0.37
"""Seconds between two generated events, from which the time of the first one is computed."""


def since(events: int) -> datetime:
    """Return the time of the first event, so that an hour ends among the events and can be closed."""
    now = datetime.now(UTC)
    span = timedelta(seconds=events * STEP_S)
    last = min(now.replace(minute=0, second=0, microsecond=0) + span / 2, now)
    return (last - span).replace(microsecond=0)


def show_hand_over(cleanup: contextlib.ExitStack, stack: Stack, report: Printer) -> bool:
    """Close, hand over, and print both sums; False if they differ. No output without a suitable meter."""
    with psycopg.connect(stack.database_url) as connection:
        [(metered,)] = connection.execute(queries("devstack")["handed_over_meters"]).fetchall()
    if not metered:
        return True
    # The server's threads inherit the blocked signals, so that the main thread gets them.
    with uninterrupted():
        receiver = cleanup.enter_context(Receiver())
    report.say("\nPulses are added up as they are stored. Hours that are over are handed over to a sink:")
    _run(stack, report, receiver, "usage", "close")
    _run(stack, report, receiver, "dispatch", "--once")
    _run(stack, report, receiver, "usage", "verify")
    report.usage(stack.database_url)
    return report.hand_over(_handed_over(stack), receiver.books)


def _run(stack: Stack, report: Printer, receiver: Receiver, *words: str) -> None:
    name = " ".join(words)
    code, said = stack.run_to_end(
        words[0], [sys.executable, "-m", "processor", *words], USAGE_SINK_URL=receiver.url
    )
    report.say(f"$ processor {name}\n{said.rstrip()}")
    if code != 0:
        raise DevstackError(f"`processor {name}` ended with exit code {code}")


def _handed_over(stack: Stack) -> dict[Group, Decimal]:
    """Return the totals of all ended windows."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(queries("devstack")["usage_handed_over"]).fetchall()
    return {(tenant, sku, unit, window): value for tenant, sku, unit, window, value in rows}
