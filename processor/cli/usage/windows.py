"""processor usage close and processor usage reopen: closing windows manually."""

from datetime import UTC, datetime

import click

from processor.cli.moments import Moment
from processor.cli.output import json_option, print_json
from processor.cli.usage.totals import usage
from processor.database import migrations
from processor.handover.windows import Closed, Reopened, close_ended, reopen
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings
from processor.wiring import database


@usage.command("close")
@click.option("--meter", metavar="NAME", help="Of this meter alone.")
@click.option(
    "--tenant", metavar="TENANT_ID", help="Of this tenant alone; reopened windows stay so for the others."
)
@click.option("--until", type=Moment(), metavar="TIME", help="Windows that ended by then; by now without it.")
@json_option
def usage_close(meter: str | None, tenant: str | None, until: datetime | None, as_json: bool) -> None:
    """Close ended windows now, without waiting for their grace; later events make a revision.

    Reopened windows are closed too. Windows in progress stay open. The command is idempotent: closed and
    unchanged windows stay as they are.
    """
    with database(DatabaseSettings.load()) as connection:
        migrations.require_current(connection)
        closed = close_ended(connection, meter=meter, tenant_id=tenant, until=until)
    if as_json:
        print_json(
            {
                "windows_closed": closed.totals,
                "lines_written": closed.lines,
                "windows_released": closed.released,
                "windows_not_ended": closed.not_ended,
            }
        )
        return
    say(_said(closed))


@usage.command("reopen")
@click.option("--meter", metavar="NAME", required=True, help="The meter.")
@click.option("--window", type=Moment(), metavar="TIME", required=True, help="A moment in the window.")
@json_option
def usage_reopen(meter: str, window: datetime, as_json: bool) -> None:
    """Keep a window open, for all tenants, until `processor usage close`.

    Written lines stay, and handed-over lines stay handed over; the next close writes the changes as a new
    revision.
    """
    with database(DatabaseSettings.load()) as connection:
        migrations.require_current(connection)
        reopened = reopen(connection, meter=meter, moment=window)
    if as_json:
        print_json(
            [
                {
                    "meter": one.meter,
                    "window_start": one.window_start,
                    "was_reopened_before": not one.marked,
                    "windows_opened": one.totals,
                }
                for one in reopened
            ]
        )
        return
    for one in reopened:
        say(_said_of_reopened(one))


def _said(closed: Closed) -> str:
    """Describe the result; a window counts once per tenant and group."""
    said = [
        f"{closed.totals} window(s) closed, {closed.lines} line(s) written"
        if closed.totals
        else "nothing to close"
    ]
    if closed.released:
        said.append(f"{closed.released} reopened window(s) released")
    if closed.not_ended:
        said.append(f"{closed.not_ended} window(s) have not ended and stay open")
    return "; ".join(said)


def _said_of_reopened(one: Reopened) -> str:
    start = one.window_start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not one.marked:
        return f"{one.meter}: the window from {start} was reopened already, and stays open until usage close"
    return (
        f"{one.meter}: the window from {start} stays open until usage close; "
        f"{one.totals} closed window(s) opened"
    )


COMMANDS: list[click.Command] = []
"""Empty: both are subcommands of `usage`."""
