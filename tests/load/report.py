"""What a person reads of the results: tables on the terminal, and a line for each thing to bear in mind."""

from collections.abc import Iterator, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.load.flood import Quiet
from tests.load.latency import Latency
from tests.load.limits import DATABASE_LIMITS, QUEUE_LIMITS
from tests.load.memory import Memory
from tests.load.race import Race
from tests.load.results import NOT_COMPARED, Machine, Results
from tests.load.rounds import Figures

WIDTH_MIN = 124
LIMITS = {**QUEUE_LIMITS, **DATABASE_LIMITS}


def show(results: Results) -> None:
    """Print a table for each thing that was measured."""
    console = Console()
    if console.width < WIDTH_MIN and not console.is_terminal:
        console = Console(width=WIDTH_MIN)
    for table in _tables(results):
        console.print(table)
        console.print()
    for line in _lines(results):
        console.print(line, soft_wrap=True, highlight=False)


def spread(values: Sequence[float], digits: int) -> str:
    """Give the median, and in brackets the least and the greatest."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _tables(results: Results) -> Iterator[Table]:
    if results.race:
        yield _race_table(results.race, "Draining: messages a second, and what 1,000 messages cost")
    if results.scale:
        yield _race_table(results.scale, "One to four processes on one queue")
    if results.latencies:
        yield _latency_table(results.latencies)
    if results.flood:
        yield _flood_table(results.flood)
    if results.memory:
        yield _memory_table(results.memory)


def _race_table(result: Race, title: str) -> Table:
    table = _table(
        title,
        "",
        "messages/s",
        "of ours",
        "client CPU-s",
        "database",
        "queue",
        "MiB",
        "calls",
        "commits",
        "deadlocks",
    )
    names = sorted(result.names, key=lambda name: (name in LIMITS, -_rate(result, name)))
    for place, name in enumerate(names):
        if name in LIMITS and place and names[place - 1] not in LIMITS:
            table.add_section()
        table.add_row(name, *_cells(result, name))
    for name, reason in result.missing.items():
        table.add_row(name, f"missing: {reason}")
    return table


def _cells(result: Race, name: str) -> Iterator[str]:
    runs, ratio = result.runs(name), result.of_ours(name)
    yield spread([run.rate_per_s for run in runs], 0)
    yield "" if ratio is None else f"{ratio:.2f}"
    yield spread([run.client_cpu_s for run in runs], 3)
    for field, digits in (
        ("database_cpu_s", 3),
        ("queue_cpu_s", 3),
        ("rss_peak_mib", 0),
        ("sqs_calls", 0),
        ("transactions", 0),
        ("deadlocks", 0),
    ):
        yield _median(runs, field, digits)


def _median(runs: Sequence[Figures], field: str, digits: int) -> str:
    known = [value for run in runs if (value := getattr(run, field)) is not None]
    return f"{median(known):,.{digits}f}" if known else ""


def _rate(result: Race, name: str) -> float:
    return median(run.rate_per_s for run in result.runs(name))


def _latency_table(latencies: Sequence[Latency]) -> Table:
    table = _table(
        "From send to commit, in milliseconds",
        "",
        "messages/s",
        "p50",
        "p99",
        "max",
        "messages",
        "sender late by",
    )
    for place, one in enumerate(latencies):
        if place and latencies[place - 1].rate_per_s != one.rate_per_s:
            table.add_section()
        figures = (f"{value:.1f}" for value in (one.p50_ms, one.p99_ms, one.max_ms))
        table.add_row(
            one.name, f"{one.rate_per_s:,}", *figures, f"{one.messages:,}", f"{one.sender_late_ms_max:.1f}"
        )
    return table


def _flood_table(rows: Sequence[Quiet]) -> Table:
    table = _table(
        "Quiet tenants from receive to commit, in milliseconds",
        "",
        "flood",
        "left at the end",
        "p50",
        "p99",
        "max",
    )
    for one in rows:
        figures = (f"{value:.1f}" for value in (one.p50_ms, one.p99_ms, one.max_ms))
        table.add_row(one.name, f"{one.flood:,}", f"{one.flood_left:,}", *figures)
    return table


def _memory_table(rows: Sequence[Memory]) -> Table:
    table = _table("Resident memory at its peak", "", "waiting", "bytes each", "drained", "MiB")
    for one in rows:
        table.add_row(
            one.name, f"{one.waiting:,}", f"{one.body_bytes:,}", f"{one.drained:,}", f"{one.rss_peak_mib:.0f}"
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    return table


def _lines(results: Results) -> Iterator[str]:
    if results.idle:
        one = results.idle
        yield (
            f"Idle: {one.name} made {one.receives} receives in {one.seconds} s ({one.receives_per_s:.2f}/s, "
            f"{one.parked} at a time) and used {one.client_cpu_s_per_hour:.0f} CPU-seconds an hour."
        )
    if results.race and len(results.race.rounds) > 1:
        yield f"Medians of {len(results.race.rounds)} rounds, the least and the greatest in brackets."
    yield from machine_lines(results.machine)
    yield f"Not compared: {'; '.join(NOT_COMPARED)}."


def machine_lines(machine: Machine) -> Iterator[str]:
    """Say where and with what it was measured."""
    yield (
        f"{machine.made_at}, {machine.processor}, {machine.cores} cores shared by client, queue server and "
        f"PostgreSQL, {machine.memory_gib:.0f} GiB, {machine.system}."
    )
    yield (
        "With "
        + ", ".join(f"{name} {number}" for name, number in machine.versions.items())
        + f"; queue server: {machine.queue}; fsync on."
    )
