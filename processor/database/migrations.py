"""Apply migrations: numbered SQL files, each applied once, forward only.

A file that older code can't work with says so in its first line (`-- breaks older code: why`). Code accepts a
newer database unless one of the unknown migrations has this mark.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import psycopg

from processor.database.queries import queries, sql_folder
from processor.errors import MigrationsPending, StoreFault, StoreUnavailable

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_LOCK_WAIT_MS = 2000
"""Saves queue up behind a waiting migration, so it waits briefly, rolls back and starts again."""

_FIRST_WAIT_MS = 60_000
_LOCK_TRIES = 3
_LOCK_SINCE = 7
"""The migration since which only our roles can take the lock."""

_FIRST_BEFORE = "b2efc515e239a779df5c6176f0002c85a157491cdd295b1b981b22190372eb6d"
_ALL_BEFORE = "7d73cd8f81a25465b55f6ffa205675663086c00fe4db6fcc3f6e7d08c1715504"
"""Checksums of the history before 0.1.0: of its first file, and of all 22 (lines `number checksum`)."""

_BASELINE = 8
"""The number of files that make the same tables as that history."""

Applied: TypeAlias = tuple[str, str, bool]

_BREAKS = "-- breaks older code:"


@dataclass(frozen=True)
class Migration:
    """One migration file."""

    number: int
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The SQL of the file."""
        return self.path.read_text(encoding="utf-8")

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def breaks_older_code(self) -> bool:
        """Whether its first line has the mark that older code can't work with it."""
        return self.text.startswith(_BREAKS)


@dataclass(frozen=True, slots=True)
class State:
    """The difference between code and database, as names of migrations.

    `pending` are not applied yet, `unknown` are applied but not known to this code, `breaking` are those
    unknown ones that this code can't work with, `edited` differ from the file that was applied.
    """

    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    breaking: tuple[str, ...]
    edited: tuple[str, ...]


def known_migrations() -> list[Migration]:
    """Return the migrations of this code, in order."""
    found = [
        Migration(int(matched["number"]), matched["name"], path)
        for path in (sql_folder() / "migrations").iterdir()
        if (matched := _FILE.fullmatch(path.name))
    ]
    return sorted(found, key=lambda migration: migration.number)


def state(connection: psycopg.Connection[Any]) -> State:
    """Compare the files with the applied migrations."""
    applied = _applied(connection)
    if _is_of_before(applied):
        applied = {}
    known = {migration.number: migration for migration in known_migrations()}
    newest = max(known)
    return State(
        pending=tuple(_title(m.number, m.name) for m in known.values() if m.number not in applied),
        unknown=tuple(_title(number, row[0]) for number, row in applied.items() if number not in known),
        breaking=tuple(
            _title(number, row[0]) for number, row in applied.items() if number > newest and row[2]
        ),
        edited=tuple(
            _title(number, row[0])
            for number, row in applied.items()
            if number in known and known[number].checksum != row[1]
        ),
    )


def require_current(connection: psycopg.Connection[Any]) -> State:
    """Raise MigrationsPending if the database is behind, and StoreFault if it is too far ahead."""
    found = state(connection)
    if found.pending:
        raise MigrationsPending(
            f"the database lacks {len(found.pending)} migration(s), from {found.pending[0]} on; "
            "run: processor migrate"
        )
    if found.breaking:
        raise StoreFault(
            f"the database is newer than this code and can't work with it, since {found.breaking[0]}; "
            "run a newer version of event-processor"
        )
    return found


def migrate(connection: psycopg.Connection[Any], on_notice: Callable[[str], object] = str) -> list[str]:
    """Apply pending migrations, each in its own transaction, and return their names.

    `on_notice` gets the notices of migrations, for example that the role may not create roles. One process
    migrates at a time, others wait. Raises StoreFault if a file fails, and StoreUnavailable if a lock is not
    available in time; the transaction is then rolled back.
    """

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        on_notice(notice.message_primary or "")

    connection.add_notice_handler(hear)
    if _is_of_before(_applied(connection)):
        _take_over(connection)
    return [
        _title(migration.number, migration.name)
        for migration in known_migrations()
        if migration.number not in _applied(connection) and _apply(connection, migration)
    ]


def _is_of_before(applied: Mapping[int, Applied]) -> bool:
    """Return whether a database was made by the history before 0.1.0."""
    return 0 in applied and applied[0][1] == _FIRST_BEFORE


def _take_over(connection: psycopg.Connection[Any]) -> None:
    """Record the baseline as applied to a complete old history. Raises StoreFault if it is incomplete."""
    sql = queries("migrations")
    applied = _applied(connection)
    lines = "".join(f"{number} {checksum}\n" for number, (_, checksum, _) in applied.items())
    if hashlib.sha256(lines.encode()).hexdigest() != _ALL_BEFORE:
        newest = max(applied)
        raise StoreFault(
            "the tables are of an older history of migrations, at "
            f"{_title(newest, applied[newest][0])}; expected its end, 0021_schema_choices: "
            "run `processor migrate` of the last code with that history, then this one"
        )
    with connection.transaction():
        connection.execute(sql["lock"])
        # Checked again, because another process may have been first.
        if _is_of_before(_applied(connection)):
            connection.execute(sql["validate_rejections"])
            connection.execute(sql["forget_history"])
            for migration in known_migrations()[:_BASELINE]:
                _note(connection, migration)


def _apply(connection: psycopg.Connection[Any], migration: Migration) -> bool:
    """Apply a file; return False if another process did so first."""
    try:
        for _ in range(_LOCK_TRIES - 1):
            with suppress(psycopg.errors.LockNotAvailable):
                return _run(connection, migration)
        return _run(connection, migration)
    except psycopg.errors.LockNotAvailable:
        raise StoreUnavailable(
            f"migration {_title(migration.number, migration.name)} met a table that others have in use, gave "
            "up so as to keep nobody waiting, and left nothing behind; find the transaction that is open for "
            f"so long (pg_stat_activity{_open_now(connection)}), then run it again"
        ) from None
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise StoreFault(
            f"migration {_title(migration.number, migration.name)} failed and left nothing behind: "
            f"{error.diag.message_primary} ({error.sqlstate})"
        ) from error


def _run(connection: psycopg.Connection[Any], migration: Migration) -> bool:
    sql = queries("migrations")
    applied = _applied(connection)
    begun = bool(applied)
    try:
        with connection.transaction():
            if _LOCK_SINCE in applied:
                # No limit to the wait for another migrating process: only our roles can take this lock.
                connection.execute(sql["lock"])
            elif begun:
                connection.execute(sql["bound_wait"], {"wait_ms": str(_FIRST_WAIT_MS)})
                connection.execute(sql["lock_at_first"])
            connection.execute(sql["bound_wait"], {"wait_ms": str(_LOCK_WAIT_MS)})
            if begun and migration.number in _applied(connection):
                return False
            connection.execute(migration.text.encode())
            _note(connection, migration)
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        # The first migration creates the table that is locked, and only one of two processes can.
        if begun or not _applied(connection):
            raise
        return False
    return True


def _note(connection: psycopg.Connection[Any], migration: Migration) -> None:
    connection.execute(
        queries("migrations")["note"],
        {
            "number": migration.number,
            "name": migration.name,
            "checksum": migration.checksum,
            "breaks_older_code": migration.breaks_older_code,
        },
    )


def _open_now(connection: psycopg.Connection[Any]) -> str:
    rows = connection.execute(queries("migrations")["holders"]).fetchall()
    return "".join(f", pid {pid} of {role}" for pid, role in rows)


def _applied(connection: psycopg.Connection[Any]) -> dict[int, Applied]:
    sql = queries("migrations")
    row = connection.execute(sql["begun"]).fetchone()
    if row is None or not row[0]:
        return {}
    return {
        number: (name, checksum, breaks)
        for number, name, checksum, breaks in connection.execute(sql["applied"])
    }


def _title(number: int, name: str) -> str:
    return f"{number:04d}_{name}"
