"""What a person reads: tables on the terminal, and the same figures as JSON."""

from statistics import median

from rich.console import Console
from rich.table import Table

from tests.load.contestants import OURS
from tests.load.race import Race


def spread(values: list[float], digits: int) -> str:
    """Give the median, and in brackets the least and the greatest."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def print_race(result: Race) -> None:
    """Print one line per contestant: medians, with the least and the greatest in brackets."""
    table = Table(title="Draining a queue into the table")
    for name in (
        "contestant",
        "messages/s",
        "of ours",
        "client CPU-s",
        "database CPU-s",
        "queue CPU-s",
        "peak MiB",
        "calls",
        "transactions",
    ):
        table.add_column(name, justify="left" if name == "contestant" else "right")
    names = list(dict.fromkeys(name for shown in result.rounds for name in shown))
    for name in sorted(names, key=lambda name: -median(shown[name].rate_per_s for shown in result.rounds)):
        runs = [shown[name] for shown in result.rounds]
        ratios = [shown[name].rate_per_s / shown[OURS].rate_per_s for shown in result.rounds if OURS in shown]
        calls = [run.sqs_calls for run in runs if run.sqs_calls is not None]
        table.add_row(
            name,
            spread([run.rate_per_s for run in runs], 0),
            f"{median(ratios):.2f}" if ratios else "",
            spread([run.client_cpu_s for run in runs], 3),
            f"{median(run.database_cpu_s for run in runs):.3f}",
            f"{median(run.queue_cpu_s for run in runs):.3f}",
            f"{median(run.rss_peak_mib for run in runs):.0f}",
            f"{median(calls):.0f}" if calls else "",
            f"{median(run.transactions for run in runs):.0f}",
        )
    for name, reason in result.missing.items():
        table.add_row(name, f"missing: {reason}")
    Console().print(table)
