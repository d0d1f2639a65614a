"""processor usage: query, verify and rebuild totals."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import click

from processor.cli.errors import Exit
from processor.cli.moments import Moment
from processor.cli.output import json_option, print_json, print_rows, print_table
from processor.errors import SettingsError
from processor.runtime.escaping import escaped, json_escaped
from processor.runtime.terminal import fit, say
from processor.settings import DatabaseSettings
from processor.usage.selection import TotalsSelection
from processor.usage.verify import LISTED_MAX
from processor.wiring import usage as wiring

F = TypeVar("F", bound=Callable[..., Any])

_TABLE_ROWS_MAX = 1000
_BEFORE = ("tenant_id", "meter", "window_start")
_AFTER = ("value", "messages", "revision", "state")


@click.group()
def usage() -> None:
    """Query, verify, rebuild and close the totals of meters, by tenant, window and group.

    Totals are raised in the transaction that stores the messages. Print them (query), verify them (verify),
    count older messages or repair totals (rebuild), list voids without effect (voids), and compare with the
    sink after a restore (reconcile).
    """


def _selecting(command: F) -> F:
    for option in reversed(
        [
            click.option("--tenant", "tenant_id", help="Only of this tenant."),
            click.option(
                "--from", "window_from", type=Moment(), help="Windows that begin then or later (UTC)."
            ),
            click.option("--until", "window_until", type=Moment(), help="Windows that begin before then."),
        ]
    ):
        command = option(command)
    return command


_meter_option = click.option("--meter", help="Only of this meter.")


@usage.command("query")
@_selecting
@_meter_option
@click.option(
    "--group", "groups", metavar="NAME=VALUE", multiple=True, help="Only where this group has this value."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
@click.option(
    "--limit",
    type=click.IntRange(1, 2**31 - 1),
    help="As many rows at the most; a table has 1000 unless told.",
)
def usage_query(
    *,
    groups: tuple[str, ...],
    as_csv: bool,
    as_json: bool,
    limit: int | None,
    **selected: Any,  # noqa: ANN401
) -> None:
    """Print the totals of one snapshot, ordered by tenant, meter, window and group, with all digits.

    Times are RFC 3339; one without a zone is UTC, a date its midnight. With --from or --until meters without
    windows are omitted. Groups are a tenant's own text: import them into a spreadsheet as text. States:
    open, closing (ended, in its grace or changed since it was closed), closed, handed_over.
    """
    if as_csv and as_json:
        raise click.UsageError("expected --csv or --json, not both")
    wanted = dict(_group(text) for text in groups)
    rows_max = limit or (None if as_csv or as_json else _TABLE_ROWS_MAX)
    # One more row shows whether there are more.
    asked = None if rows_max is None else rows_max + 1
    with wiring.ask_totals(DatabaseSettings.load(), TotalsSelection(**selected), wanted, limit=asked) as (
        names,
        rows,
    ):
        shown = islice(rows, rows_max)
        if as_json:
            _print_array(shown)
        elif as_csv:
            _print_csv(names, shown)
        else:
            _print_totals(names, list(shown))
        more = next(rows, None) is not None
    if more:
        say(f"processor: there are more than these {rows_max} rows; --limit shows more", err=True)


@usage.command("voids")
@click.option("--tenant", "tenant_id", help="Only of this tenant.")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), help="As many rows; a table has 1000.")
@json_option
def usage_voids(tenant_id: str | None, limit: int | None, as_json: bool) -> None:
    """List the voids without effect so far, latest first, with the reason.

    no_message: the message has not arrived yet (a later arrival is cancelled too), or retention has removed
    it. other_producer: the id exists, but of another producer; with --id-scope the producer is the one that
    `processor trace` shows. is_a_void: a void can't be cancelled. not_counted: no meter counts the message.
    Of several voids of one message, only the first is listed.
    """
    rows = wiring.list_idle_voids(
        DatabaseSettings.load(), tenant_id, limit or (None if as_json else _TABLE_ROWS_MAX)
    )
    shown = rows if as_json else [row | {"producers": ", ".join(row["producers"])} for row in rows]
    print_rows(shown, as_json=as_json, empty="no void that cancelled nothing")


@usage.command("verify")
@_selecting
@_meter_option
@json_option
def usage_verify(*, as_json: bool, **selected: Any) -> None:  # noqa: ANN401 - the options of _selecting
    """Verify the totals against the stored messages. Exit code 3, with the differences, if they differ.

    The sums are recomputed from the messages, plus the amounts of messages that retention removed, in one
    snapshot beside running processors. The lines of closed windows must add up to their totals. The command
    reads all messages of the windows, which takes a while. With --from or --until, meters without windows are
    omitted.
    """
    report = wiring.run_verify(DatabaseSettings.load(), TotalsSelection(**selected))
    if as_json:
        print_json(report.as_dict())
    else:
        say(fit(report.text(), "      "))
    raise SystemExit(Exit.FINE if report.holds else Exit.PROBLEM_FOUND)


@usage.command("rebuild")
@click.option("--meter", required=True, help="Whose totals; those of every tenant that has one by this name.")
@_selecting
@click.option("--dry-run", is_flag=True, help="Only say what would be added.")
@json_option
def usage_rebuild(*, dry_run: bool, as_json: bool, **selected: Any) -> None:  # noqa: ANN401 - of _selecting
    """Rebuild the totals of a meter from the stored messages, older ones than the meter included.

    Ingestion continues. The rebuild is idempotent and can be interrupted: the next one finds the rest. Closed
    windows that change get another revision, the difference, when they close again. For one tenant of a
    shared meter, totals are only repaired: messages older than the meter count for all tenants, or for none.
    """
    selection = TotalsSelection(**selected)

    def progress(count: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{count} totals changed", nl=False, err=True)

    rebuilt = wiring.run_rebuild(DatabaseSettings.load(), selection, dry_run=dry_run, on_step=progress)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "totals": rebuilt.totals,
                "misses": rebuilt.misses,
                "counts_older": rebuilt.counts_older,
                "differences": rebuilt.differences,
            }
        )
        return
    would = "would be " if dry_run else ""
    say(f"meter {selection.meter}: {rebuilt.totals} totals {would}changed")
    for row in rebuilt.differences[:LISTED_MAX]:
        click.echo(fit(escaped("  " + "  ".join(f"{name}={value}" for name, value in row.items())), "    "))
    if rebuilt.totals > LISTED_MAX:
        say(f"  ... and {rebuilt.totals - LISTED_MAX} more")
    if rebuilt.misses:
        say(f"{rebuilt.misses} messages of these windows can't be counted by it")
    if not rebuilt.counts_older:
        say("messages from before the meter was active stay uncounted; they count without --tenant")


def _group(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise SettingsError(f"--group {text!r}: expected NAME=VALUE, such as product_sku=disk")
    return name, value


def _print_array(rows: Iterator[dict[str, Any]]) -> None:
    """Print a JSON array row by row, so that it need not fit into memory."""
    separator = "[\n  "
    for row in rows:
        click.echo(separator + json_escaped(json.dumps(row, ensure_ascii=False)), nl=False)
        separator = ",\n  "
    say("[]" if separator.startswith("[") else "\n]")


def _print_csv(names: list[str], rows: Iterator[dict[str, Any]]) -> None:
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(_headings(names))
    for row in rows:
        writer.writerow("" if cell is None else str(cell) for cell in _cells(names, row))
        _to_file_or_screen(line.getvalue())
        line.seek(0)
        line.truncate()
    _to_file_or_screen(line.getvalue())


def _to_file_or_screen(text: str) -> None:
    if sys.stdout.isatty():
        say(text, nl=False)
    else:
        # Not through the filtered stream: a tenant's text reaches a file unchanged.
        click.echo(text.encode("utf-8", "surrogatepass"), nl=False)


def _print_totals(names: list[str], rows: list[dict[str, Any]]) -> None:
    if not rows:
        say("no totals; `processor meter list` says what is counted, and since when")
        return
    # Groups of meters without totals would fill the screen with dashes.
    shown = [name for name in names if any(name in row["group"] for row in rows)]
    print_table(_headings(shown), [_cells(shown, row) for row in rows])


def _headings(names: list[str]) -> list[str]:
    taken = {*_BEFORE, *_AFTER}
    return [*_BEFORE, *(f"group.{name}" if name in taken else name for name in names), *_AFTER]


def _cells(names: list[str], row: dict[str, Any]) -> list[datetime | str | int | None]:
    return [
        *(row[name] for name in _BEFORE),
        *(row["group"].get(name) for name in names),
        *(row[name] for name in _AFTER),
    ]


COMMANDS = [usage]
