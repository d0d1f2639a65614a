"""Wiring of usage commands, on a connection that sees all rows of a migrated database."""

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
    """Query totals; a tenant reader sees only its own tenant's."""
    with database(settings) as connection, totals(connection, selection, groups, limit=limit) as found:
        yield found


def run_verify(settings: DatabaseSettings, selection: TotalsSelection) -> VerifyReport:
    """Verify the totals against the messages."""
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        return verify(connection, selection)


def run_rebuild(
    settings: DatabaseSettings, selection: TotalsSelection, *, dry_run: bool, on_step: Callable[[int], object]
) -> Rebuilt:
    """Rebuild the totals of a meter."""
    with database(settings) as connection:
        migrations.require_current(connection)
        # A hidden message would be subtracted from the totals.
        require_all_rows(connection)
        return rebuild(connection, selection, dry_run=dry_run, on_step=on_step)


def list_idle_voids(settings: DatabaseSettings, tenant_id: str | None, limit: int | None) -> list[Row]:
    """List voids without effect; a tenant reader sees only its own tenant's."""
    with database(settings) as connection:
        migrations.require_current(connection)
        return idle_voids(connection, tenant_id, limit)


def run_nothing_lost(settings: DatabaseSettings) -> str:
    """Record that no handed-over line is missing in this place; returns the place."""
    with database(settings) as connection:
        migrations.require_current(connection)
        return nothing_lost(connection)


def run_reconcile(settings: DatabaseSettings, file: Path | None, choice: Choice) -> Reconciled:
    """Reconcile our lines with the sink's, from a file or standard input (None)."""
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        try:
            with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as texts:
                return reconcile(connection, read_lines(texts), choice)
        except OSError as error:
            raise SettingsError(f"{file or 'standard input'} can't be read: {error.strerror}") from None
