"""Wiring of the counter's files: on demand, and at the end of a run."""

import shlex
import threading
from pathlib import Path

import structlog

from processor.errors import Stopped, StoreUnavailable
from processor.runtime.outages import OutageRetry
from processor.settings import DatabaseSettings, RunSettings
from processor.usage.count_files import require_writable
from processor.usage.counter import (
    Counts,
    CountSelection,
    find_counters,
    forget_run,
    forget_runs,
    write_counts,
)
from processor.wiring import database

log = structlog.get_logger(__name__)


def count(settings: DatabaseSettings, directory: Path, selection: CountSelection) -> Counts:
    """Write the files. Raises as write_counts does."""
    with database(settings) as connection:
        return write_counts(connection, directory, selection)


class CountsOfRun:
    """The counts of a run: checked at its start, written at its end."""

    def __init__(
        self, settings: RunSettings, directory: Path, selection: CountSelection, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._selection = selection
        self._retry = OutageRetry("database", wait_s_max=settings.retry_wait_s_max, stop=stop)

    def prepare(self) -> None:
        """Raise the errors that would prevent the files. An outage of the database is waited out."""
        require_writable(self._directory)
        self._retry(self._begin)
        if self._selection.run_id is not None:
            log.info("run_noted", run_id=self._selection.run_id, if_it_ends_without_files=self._later())

    def write(self) -> None:
        """Write the committed counts. Waits for the database; after a stop raises StoreUnavailable."""
        try:
            counts = self._retry(lambda: count(self._settings, self._directory, self._selection))
            self._retry(self._forget)
        except Stopped as stopped:
            raise StoreUnavailable(
                f"the counts are not written: {stopped}; {self._later()} does it later"
            ) from None
        for file in counts.files:
            log.info(
                "counted", path=str(self._directory / file.file), users=file.users, messages=file.messages
            )
        if counts.tenants > 1:
            log.warning("tenants_added_up", tenants=counts.tenants, to_count_one="--tenant")

    def _begin(self) -> None:
        with database(self._settings) as connection:
            find_counters(connection, self._selection)
            if self._selection.run_id is not None:
                forget_runs(connection, keep_days=self._settings.key_retention_days)

    def _forget(self) -> None:
        if self._selection.run_id is not None:
            with database(self._settings) as connection:
                forget_run(connection, self._selection.run_id)

    def _later(self) -> str:
        words = ["processor", "count", "--to", str(self._directory)]
        if self._selection.tenant_id is not None:
            words += ["--tenant", self._selection.tenant_id]
        if self._selection.run_id is not None:
            words += ["--run", self._selection.run_id]
        return shlex.join(words)
