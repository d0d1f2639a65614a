"""The results as text: tables for the terminal, and a line for each caveat."""

from collections.abc import Iterator, Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.bench.figures.gateway_report import markdown, of_sources
from tests.bench.figures.latency import Latency
from tests.bench.figures.results import NOT_COMPARED, Machine, Results
from tests.bench.figures.rounds import Figures
from tests.bench.flood import Quiet
from tests.bench.limits import DATABASE_LIMITS, QUEUE_LIMITS
from tests.bench.memory import MIB, Memory
from tests.bench.race import Race
from tests.bench.usage import COMPARED, Usage

WIDTH_MIN = 110
LIMITS = {**QUEUE_LIMITS, **DATABASE_LIMITS}


def show(results: Results) -> None:
    """Print a table for each thing that was measured."""
    console = Console()
    if console.width < WIDTH_MIN:
        # A line that the terminal wraps is still whole; a column that we cut is not.
        console = Console(width=WIDTH_MIN)
    for table in _tables(results):
        console.print(table)
        console.print()
    if results.gateways:
        console.print(markdown(results.gateways), soft_wrap=True, highlight=False, markup=False)
        console.print()
    if results.sources:
        console.print(of_sources(results.sources), soft_wrap=True, highlight=False, markup=False)
        console.print()
    for line in _lines(results):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def spread(values: Sequence[float], digits: int) -> str:
    """Give the median, and in brackets the least and the greatest."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _tables(results: Results) -> Iterator[Table]:
    if results.race:
        yield from _race_tables(results.race, "Draining a full queue")
    if results.scale:
        yield from _race_tables(results.scale, "One to four processes on one queue")
    if results.usage:
        yield from _usage_tables(results.usage)
    if results.latencies:
        yield _latency_table(results.latencies)
    if results.flood:
        yield _flood_table(results.flood)
    if results.memory:
        yield _memory_table(results.memory)


def _race_tables(result: Race, title: str) -> Iterator[Table]:
    speed = _table(title, "", "messages/s", "times ours", "client CPU-s per 1,000", "MiB at the peak")
    rest = _table(
        "What else 1,000 messages take",
        "",
        "database CPU-s",
        "queue CPU-s",
        "SQS calls",
        "commits",
        "deadlocks in all",
    )
    names = sorted(result.names, key=lambda name: (name in LIMITS, -_rate(result, name)))
    for place, name in enumerate(names):
        runs, ratio = result.runs(name), result.of_ours(name)
        if name in LIMITS and place and names[place - 1] not in LIMITS:
            speed.add_section()
            rest.add_section()
        rate, cpu = spread([run.rate_per_s for run in runs], 0), spread([run.client_cpu_s for run in runs], 3)
        speed.add_row(name, rate, f"{ratio:.2f}" if ratio else "", cpu, _median(runs, "rss_peak_mib", 0))
        fields = ("database_cpu_s", "queue_cpu_s", "sqs_calls", "transactions")
        costs = (_median(runs, field, 3 if field.endswith("_s") else 0) for field in fields)
        known = [run.deadlocks for run in runs if run.deadlocks is not None]
        rest.add_row(name, *costs, f"{sum(known)}" if known else "")
    yield speed
    yield rest


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
        "a flush of the log takes",
        "sender late by up to",
    )
    for place, one in enumerate(latencies):
        if place and latencies[place - 1].rate_per_s != one.rate_per_s:
            table.add_section()
        figures = (one.p50_ms, one.p99_ms, one.max_ms, one.flush_ms, one.sender_late_ms_max)
        table.add_row(one.name, f"{one.rate_per_s:,}", *(f"{value:.1f}" for value in figures))
    return table


def _usage_tables(usage: Usage) -> Iterator[Table]:
    speed = _table(
        "Draining pulses with a meter and without",
        "",
        "messages/s",
        "of it",
        "database CPU-s per 1,000",
    )
    for name in usage.race.names:
        runs = usage.race.runs(name)
        ratio = usage.kept(name) if name in COMPARED else None
        kept = "" if ratio is None else f"{ratio:.2f}"
        rate = spread([run.rate_per_s for run in runs], 0)
        speed.add_row(name, rate, kept, _median(runs, "database_cpu_s", 3))
    yield speed
    last = usage.totals[-1]
    table = _table(
        f"The table of totals after {last.messages:,} pulses, drained by {last.processes} processes at once",
        *("", "messages/s", "deadlocks", "a commit", "totals locked", "rows", "MiB", "index MiB"),
    )
    for one in usage.totals:
        commit = (f"{one.messages_per_commit:.0f}", f"{one.locked_per_commit:.1f}")
        sizes = (f"{size / MIB:.1f}" for size in (one.table_bytes, one.index_bytes))
        table.add_row(
            one.name, f"{one.rate_per_s:,.0f}", f"{one.deadlocks}", *commit, f"{one.rows:,}", *sizes
        )
    yield table


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
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _lines(results: Results) -> Iterator[str]:
    if results.idle:
        one = results.idle
        yield (
            f"Idle: {one.name} made {one.receives} receives in {one.seconds} s ({one.receives_per_s:.2f}/s, "
            f"{one.parked} at a time) and used {one.client_cpu_s_per_hour:.0f} CPU-seconds an hour."
        )
    for name, reason in [
        pair for one in (results.race, results.sources) if one for pair in one.missing.items()
    ]:
        yield f"{name} did not take part: {reason}"
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
