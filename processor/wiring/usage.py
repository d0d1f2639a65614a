"""What is asked of totals and done to them, on a connection that sees all rows of a current database."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from processor.database import migrations
from processor.database.connection import require_all_rows
from processor.errors import SettingsError
from processor.handover.reconcile import Choice, Reconciled, nothing_lost, reconcile
from processor.handover.sink_lines import read_lines
from processor.settings import DatabaseSettings
from processor.usage.query import totals
from processor.usage.rebuild import Rebuilt, rebuild
from processor.usage.selection import Row, TotalsSelection
from processor.usage.verify import VerifyReport, verify
from processor.usage.voids import idle_voids
from processor.wiring import database


@contextmanager
def ask_totals(
    settings: DatabaseSettings, selection: TotalsSelection, groups: Mapping[str, str], *, limit: int | None
) -> Iterator[tuple[list[str], Iterator[dict[str, Any]]]]:
    """Ask for totals; a reader of one tenant sees that tenant's."""
    with database(settings) as connection, totals(connection, selection, groups, limit=limit) as found:
        yield found


def run_verify(settings: DatabaseSettings, selection: TotalsSelection) -> VerifyReport:
    """Compare the totals with the messages."""
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        return verify(connection, selection)


def run_rebuild(
    settings: DatabaseSettings, selection: TotalsSelection, *, dry_run: bool, on_step: Callable[[int], object]
) -> Rebuilt:
    """Add to the totals of a meter what they lack."""
    with database(settings) as connection:
        migrations.require_current(connection)
        # A message that it can't see would be taken off the totals.
        require_all_rows(connection)
        return rebuild(connection, selection, dry_run=dry_run, on_step=on_step)


def list_idle_voids(settings: DatabaseSettings, tenant_id: str | None, limit: int | None) -> list[Row]:
    """List voids that have cancelled nothing; a reader of one tenant sees that tenant's."""
    with database(settings) as connection:
        migrations.require_current(connection)
        return idle_voids(connection, tenant_id, limit)


def run_nothing_lost(settings: DatabaseSettings) -> str:
    """Note that this place lacks nothing that was handed over; gives the place."""
    with database(settings) as connection:
        migrations.require_current(connection)
        return nothing_lost(connection)


def run_reconcile(settings: DatabaseSettings, file: Path | None, choice: Choice) -> Reconciled:
    """Make our lines what the sink has, by a file of its lines, or by standard input (None)."""
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        try:
            with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as texts:
                return reconcile(connection, read_lines(texts), choice)
        except OSError as error:
            raise SettingsError(f"{file or 'standard input'} can't be read: {error.strerror}") from None
