"""processor retention: plan and apply."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import click

from processor.cli.output import json_option, print_json, print_table
from processor.cli.progress import Progress
from processor.cli.signals import stop_at_signals
from processor.operations.retention import Ages, Step
from processor.runtime.terminal import say
from processor.settings import DAYS_MAX, KEY_DAYS_ADVISED, RetentionSettings
from processor.wiring import commands

F = TypeVar("F", bound=Callable[..., Any])

_NO_AGE = (
    "nothing is ever removed: no age is set. Set MESSAGE_RETENTION_DAYS, DUPLICATE_RETENTION_DAYS or "
    "REJECTION_RETENTION_DAYS, or give --message-days, --duplicate-days or --rejection-days; only what a "
    "rule discarded goes after a day"
)


def _ages(command: F) -> F:
    days = click.IntRange(1, DAYS_MAX)
    for option in reversed(
        [
            click.option(
                "--message-days", type=days, help="Instead of MESSAGE_RETENTION_DAYS: age since stored."
            ),
            click.option(
                "--duplicate-days", type=days, help="Instead of DUPLICATE_RETENTION_DAYS: since received."
            ),
            click.option(
                "--rejection-days", type=days, help="Instead of REJECTION_RETENTION_DAYS: since closed."
            ),
        ]
    ):
        command = option(command)
    return command


@click.group()
def retention() -> None:
    """Remove and count old messages, duplicates and closed rejections, each by its own retention.

    Rows are removed only if a retention is set. None may be below KEY_RETENTION_DAYS, the time within which
    duplicates are recognized. Rejections discarded by a rule are removed after a day in any case. Open
    rejections always stay. A message stays while a duplicate or an open rejection had its key within
    KEY_RETENTION_DAYS.
    """


@retention.command("plan")
@_ages
@json_option
def retention_plan(as_json: bool, **days: int | None) -> None:
    """Count the rows that apply would remove now, by outcome and tenant. Read-only."""
    settings = _settings(days)
    ages, rows = commands.plan_retention(settings)
    if as_json:
        print_json({"days": ages.as_dict(), "key_days": ages.key, "removable": rows})
        return
    _explain(ages)
    if not rows:
        say("nothing is old enough")
    else:
        _print_plan(ages, rows)


@retention.command("apply")
@_ages
@click.option(
    "--step-size",
    type=click.IntRange(1, 50_000),
    default=2000,
    show_default=True,
    help="Rows in one transaction at the most.",
)
@click.option(
    "--pause-ms",
    type=click.IntRange(0, 60_000),
    default=20,
    show_default=True,
    help="Milliseconds of rest after each transaction that removed something.",
)
@json_option
def retention_apply(step_size: int, pause_ms: int, as_json: bool, **days: int | None) -> None:
    """Remove rows beyond their retention, in small transactions beside running processors.

    Each transaction removes rows and stores their counts, so an interrupted run is consistent, and the next
    run continues. Ctrl-C ends it after the current transaction, with exit code 130.
    """
    settings = _settings(days)
    stop = threading.Event()
    with stop_at_signals(stop) as caught:
        ages, removed = commands.apply_retention(
            settings, step_size=step_size, pause_s=pause_ms / 1000, stop=stop, on_step=_Removed()
        )
    if as_json:
        print_json({"days": ages.as_dict(), "key_days": ages.key, "finished": not caught, "removed": removed})
    else:
        _explain(ages)
        for table, count in removed.items():
            say(f"{table}: {count} removed")
    if caught:
        say("stopped; what was removed is counted, and running this again goes on", err=True)
        raise SystemExit(128 + caught[0])


def _settings(days: dict[str, int | None]) -> RetentionSettings:
    given = {name.replace("_days", "_retention_days"): value for name, value in days.items()}
    return RetentionSettings.load(**{name: value for name, value in given.items() if value is not None})


def _explain(ages: Ages) -> None:
    if not ages.any_set:
        say(_NO_AGE)
    if ages.key < KEY_DAYS_ADVISED:
        say(
            f"note: KEY_RETENTION_DAYS={ages.key} is below {KEY_DAYS_ADVISED}: a message may lie 14 days in "
            "the queue and 14 more after its dead-letter queue, and is counted twice if it then finds no key",
            err=True,
        )


def _print_plan(ages: Ages, rows: list[dict[str, Any]]) -> None:
    days = ages.as_dict()
    print_table(
        ["outcome", "tenant", "rows", "kept", "oldest", "newest", "by age of"],
        [
            (
                row["outcome"],
                row["tenant_id"] or None,
                row["row_count"],
                row["kept_count"],
                row["oldest_at"],
                row["newest_at"],
                "rule" if row.get("by_rule") else f"{days[row['outcome'].split('_')[0]]} days",
            )
            for row in rows
        ],
    )
    total = sum(row["row_count"] for row in rows)
    say(f"{total} row(s) would be removed by: processor retention apply")
    if kept := sum(row["kept_count"] for row in rows):
        say(f"{kept} old message(s) are kept: seen again within the last {ages.key} days")


class _Removed:
    """Counts removed rows by table, and prints the progress."""

    def __init__(self) -> None:
        self._removed: Counter[str] = Counter()
        self._progress = Progress()

    def __call__(self, step: Step) -> None:
        self._removed[step.table] += step.removed
        count, percent = self._removed[step.table], round(100 * step.read_ratio)
        self._progress.say(f"{step.table}: {count} removed, {percent} % of the table read")


COMMANDS = [retention]
