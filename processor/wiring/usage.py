"""What is asked of totals and done to them, on a connection that sees all rows of a current database."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from processor import migrations
from processor.connection import require_all_rows
from processor.settings import Settings
from processor.usage.query import totals
from processor.usage.rebuild import Rebuilt, rebuild
from processor.usage.selection import Selection
from processor.usage.verify import Report, verify
from processor.wiring import database


@contextmanager
def ask_totals(
    settings: Settings, selection: Selection, groups: Mapping[str, str], *, limit: int | None
) -> Iterator[tuple[list[str], Iterator[dict[str, Any]]]]:
    """Ask for totals; a reader of one tenant sees that tenant's."""
    with database(settings) as connection, totals(connection, selection, groups, limit=limit) as found:
        yield found


def run_verify(settings: Settings, selection: Selection) -> Report:
    """Compare the totals with the messages."""
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        return verify(connection, selection)


def run_rebuild(
    settings: Settings, selection: Selection, *, dry_run: bool, on_step: Callable[[int], object]
) -> Rebuilt:
    """Add to the totals of a meter what they lack."""
    with database(settings) as connection:
        migrations.require_current(connection)
        # A message that it can't see would be taken off the totals.
        require_all_rows(connection)
        return rebuild(connection, selection, dry_run=dry_run, on_step=on_step)
