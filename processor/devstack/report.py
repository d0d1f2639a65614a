"""The demo's report: a table per tenant, the audit, and the next commands to try."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor.database.queries import queries
from processor.devstack.servers.sink import Group, SinkJournal
from processor.devstack.stack import program, shell_path
from processor.errors import Reason
from processor.runtime.terminal import print_fitting


class Printer:
    """Prints to a terminal, or plain text to a pipe; foreign text is never interpreted as markup."""

    def __init__(self) -> None:
        self._console = Console(markup=False, highlight=False)
        self._errors = Console(markup=False, highlight=False, stderr=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print the error to stderr."""
        self._errors.print(Text(f"Error: {text}", style="red"), soft_wrap=True)

    def outcomes(self, database_url: str) -> None:
        """Print the outcomes of deliveries: a column per tenant, a line per outcome."""
        with psycopg.connect(database_url) as connection:
            rows = connection.execute(queries("devstack")["outcomes_by_tenant"]).fetchall()
        counts = {(tenant, outcome): deliveries for tenant, outcome, deliveries in rows}
        tenants = sorted({tenant for tenant, _ in counts}, key=lambda tenant: (tenant is None, tenant))
        reasons = [reason.value for reason in Reason if any(outcome == reason for _, outcome in counts)]
        table = Table(
            title="What became of every delivery",
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=0,
        )
        table.add_column("", no_wrap=True)
        for tenant in tenants:
            table.add_column(Text(tenant or "nobody"), justify="right", no_wrap=True)
        table.add_column("all", justify="right", no_wrap=True)
        for heading, outcomes in (
            ("stored", ["stored"]),
            ("duplicates", ["duplicate"]),
            ("rejected", reasons),
            *((f"  {reason}", [reason]) for reason in reasons),
        ):
            figures = [sum(counts.get((tenant, outcome), 0) for outcome in outcomes) for tenant in tenants]
            table.add_row(
                heading, *(f"{figure:,}" if figure else "·" for figure in figures), f"{sum(figures):,}"
            )
        self._print(table)
        if None in tenants:
            self.say("`nobody`: the message names no tenant that we know, or can't be read at all.")

    def usage(self, database_url: str) -> None:
        """Print the first tenant's totals of pulses, by product and state, and the number of other totals."""
        with psycopg.connect(database_url) as connection:
            rows = connection.execute(queries("devstack")["usage_by_state"]).fetchall()
        first = [row for row in rows if row[0] == rows[0][0]]
        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for heading, justify in zip(
            ("tenant", "product_sku", "unit", "amount", "messages", "state"),
            ("left", "left", "left", "right", "right", "left"),
            strict=True,
        ):
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for tenant, sku, unit, amount, messages, state in first:
            table.add_row(Text(tenant), Text(sku), Text(unit), str(amount), f"{messages:,}", state)
        self._print(table)
        others = sorted({row[0] for row in rows} - {row[0] for row in first})
        if others:
            self.say(f"and {len(rows) - len(first)} rows more, of {', '.join(others)}: processor usage query")

    def _print(self, table: Table) -> None:
        self.say("")
        print_fitting(table)

    def hand_over(self, ours: Mapping[Group, Decimal], books: SinkJournal) -> bool:
        """Print whether the sink's sums equal ours; False if they differ."""
        theirs = books.sums()
        wrong = [group for group in ours.keys() | theirs.keys() if ours.get(group) != theirs.get(group)]
        lost = sum(1 for group in wrong if group not in theirs)
        lines = len(books.lines)
        changed = len(books.changed)
        self.say(f"\nThe sink has {lines:,} lines: {lost} lost, {books.doubled} twice, {changed} changed.")
        if wrong or books.changed:
            self.fail(f"the sums of {len(wrong)} windows differ between the sink and the tables")
            return False
        self.say(f"Its sums are those of the tables, to the last digit, in all {len(ours):,} windows.")
        return True

    def audit(self, said: str, exit_code: int) -> None:
        """Print the audit's output, and the meaning of its exit code."""
        self.say("\n$ processor audit --manifest manifest.jsonl")
        self.say(said.rstrip())
        if exit_code != 0:
            self.fail(f"the audit ended with exit code {exit_code}: the books do not balance")

    def look_further(self, psql: Path, fake: str) -> None:
        """Print how to send the same events to a permanent stack, because this one is removed."""
        processor, producers = program("processor"), program("producers")
        count = "SELECT tenant_id, event_type, count(*) FROM message GROUP BY 1, 2 ORDER BY 1, 2"
        self.say(
            "\nThis stack is temporary and is removed now. To look at the same events in one that stays up,"
        )
        for command, purpose in (
            (f"{processor} dev", "in one terminal; then in another one:"),
            ("set -a; . .processor/env; set +a", "where its servers are"),
            (
                f"{producers} {fake}",
                "the same events again",
            ),
            (f"{processor} rejection list", "what was refused, and why"),
            (f"{processor} trace MESSAGE_ID", "where one event went"),
            (f"{processor} usage query", "what each tenant has used"),
            (f"{processor} audit", "whether the books balance"),
            (f'{shell_path(psql)} "$DATABASE_URL" -c "{count}"', "the rows themselves"),
        ):
            self.say(f"  # {purpose}\n  {command}")
