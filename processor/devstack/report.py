"""What the demo prints at its end: a table per tenant, the audit's equation, and where to look further."""

from pathlib import Path

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor.devstack.stack import BAD_SHARES, program, shell_path
from processor.errors import Reason
from processor.queries import queries


class Report:
    """Prints to the terminal, or plainly to a pipe; never interprets text of others as markup."""

    def __init__(self) -> None:
        self._console = Console(markup=False, highlight=False)
        self._errors = Console(markup=False, highlight=False, stderr=True)

    def say(self, text: str) -> None:
        """Print one line of the story."""
        self._console.print(text, soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print why it ended early, to stderr."""
        self._errors.print(Text(f"Error: {text}", style="red"), soft_wrap=True)

    def outcomes(self, database_url: str) -> None:
        """Print what became of each tenant's deliveries: a column per tenant, a line per outcome."""
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
            table.add_column(Text(tenant or "nobody"), justify="right")
        table.add_column("all", justify="right")
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
        self._console.print()
        self._console.print(table)
        if None in tenants:
            self.say("`nobody`: the message names no tenant that we know, or can't be read at all.")

    def audit(self, said: str, exit_code: int) -> None:
        """Print the audit's own words, and what its exit code means."""
        self.say("\n$ processor audit --manifest manifest.jsonl")
        self.say(said.rstrip())
        if exit_code != 0:
            self.fail(f"the audit ended with exit code {exit_code}: the books do not balance")

    def look_further(self, psql: Path, events: int, seed: int) -> None:
        """Print how to get the same events into a stack that stays up, because this one is being removed."""
        processor, producers = program("processor"), program("producers")
        count = "SELECT tenant_id, event_type, count(*) FROM message GROUP BY 1, 2 ORDER BY 1, 2"
        self.say(
            "\nThis stack is temporary and is removed now. To look at the same events in one that stays up,"
        )
        for command, purpose in (
            (f"{processor} dev", "in one terminal; then in another one:"),
            ("set -a; . .processor/env; set +a", "where its servers are"),
            (
                f"{producers} fake --events {events} --seed {seed} {' '.join(BAD_SHARES)}",
                "the same events again",
            ),
            (f"{processor} rejection list", "what was refused, and why"),
            (f"{processor} trace MESSAGE_ID", "where one event went"),
            (f"{processor} audit", "whether the books balance"),
            (f'{shell_path(psql)} "$DATABASE_URL" -c "{count}"', "the rows themselves"),
        ):
            self.say(f"  # {purpose}\n  {command}")
