"""The counter's files: at any time, and at the end of a run."""

import threading
from pathlib import Path

import structlog

from processor.errors import Stopped, StoreUnavailable
from processor.patience import Patience
from processor.settings import Settings
from processor.usage.count_files import require_writable
from processor.usage.counter import Counts, Selection, find_counters, write_counts
from processor.wiring import database

log = structlog.get_logger(__name__)


def count(settings: Settings, directory: Path, selection: Selection) -> Counts:
    """Write the files. Raises as write_counts does."""
    with database(settings) as connection:
        return write_counts(connection, directory, selection)


class CountsOfRun:
    """What a run does for its counts: at its beginning it finds out whether there will be any."""

    def __init__(self, settings: Settings, directory: Path, stop: threading.Event) -> None:
        self._settings = settings
        self._directory = directory
        self._patience = Patience("database", wait_s_max=settings.retry_wait_s_max, stop=stop)

    def prepare(self) -> None:
        """Raise what would keep the files from being written. An absent database is waited for."""
        require_writable(self._directory)
        self._patience(self._find_counters)

    def write(self) -> None:
        """Write what is committed. Waits for an absent database; after a stop it raises StoreUnavailable."""
        try:
            counts = self._patience(lambda: count(self._settings, self._directory, Selection()))
        except Stopped as stopped:
            raise StoreUnavailable(
                f"the counts are not written: {stopped}; processor count --to {self._directory} does it later"
            ) from None
        log.info("counted", directory=str(self._directory), files=len(counts.files), tenants=counts.tenants)

    def _find_counters(self) -> None:
        with database(self._settings) as connection:
            find_counters(connection, Selection())
