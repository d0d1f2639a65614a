"""The gateway's results as Markdown."""

from collections.abc import Iterator, Sequence
from statistics import median

from tests.bench.gateway import FLOOR, GATEWAY, PLAIN, STREAM, Gateways
from tests.bench.race import Race

SQS = "SQS"
OF = {
    GATEWAY: "HTTP, a POST for each pulse",
    FLOOR: "the same server does nothing else",
    PLAIN: "boto3's `send_message` for each",
    STREAM: "4 streams, a message for each pulse",
}


def markdown(found: Gateways) -> str:
    """Give all tables."""
    return "\n\n".join("\n".join(table) for table in (_sustained(found), _race(found)) if table)


def of_sources(race: Race) -> str:
    """Give the table of the brokers."""
    rows = [
        (
            name,
            f"{median(run.rate_per_s for run in runs):,.0f}",
            f"{race.ratio(name, SQS) or 0:.2f}",
            f"{median(run.client_cpu_s for run in runs) * 1000:,.0f}",
        )
        for name in race.names
        if (runs := race.runs(name))
    ]
    return "\n".join(_table(("", "messages/s", f"of {SQS}", "CPU µs a message"), rows))


def _sustained(found: Gateways) -> list[str]:
    rows = [
        (
            f"{one.rate_per_s:,} for {one.seconds} s",
            f"{one.accepted:,}",
            f"{one.accepted_per_s:,.0f}",
            *(f"{one.delay_ms[name]:.1f}" for name in ("p50", "p95", "p99", "max")),
            f"{one.lost}",
            *(f"{one.cpu_us[name]:.0f}" for name in ("gateway", "processor", "database", "queue", "load")),
        )
        for one in found.sustained
    ]
    heads = ("pulses/s", "accepted", "accepted/s", "p50 ms", "p95", "p99", "max", "lost")
    parts = ("gateway CPU µs", "processor", "database", "queue", "load")
    return [*_table((*heads, *parts), rows)] if rows else []


def _race(found: Gateways) -> list[str]:
    rows = []
    for name in found.race.names:
        runs = found.race.runs(name)
        ratio = found.race.ratio(name, GATEWAY)
        rows.append(
            (
                f"{name} ({OF[name]})" if name in OF else name,
                f"{median(run.rate_per_s for run in runs):,.0f}",
                f"{ratio:.2f}" if ratio is not None else "",
                f"{median(run.client_cpu_s for run in runs) * 1000:,.0f}",
                f"{median(run.rss_peak_mib or 0 for run in runs):,.0f}",
            )
        )
    return [*_table(("", "requests/s", "of the gateway", "CPU µs a request", "MiB"), rows)] if rows else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
