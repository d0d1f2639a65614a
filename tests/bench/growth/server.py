"""The PostgreSQL that grows: one server, one database for each table that is measured."""

import os
import shutil
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from processor.devstack.servers.postgres import EmbeddedPostgres

Connection = psycopg.Connection[Any]

FILLING: dict[str, str] = {"max_wal_size": "16GB", "full_page_writes": "off"}
"""For the fill alone: it is not measured, and may be done again after a crash."""

MEASURING: dict[str, str] = {"autovacuum": "off"}
"""Else it would start in the middle of one figure and not of another; every table is vacuumed before."""


class GrowthServer:
    """A server with fsync on and everything else as PostgreSQL has it, but for what `settings` changes."""

    def __init__(self, directory: Path) -> None:
        self.postgres = EmbeddedPostgres(directory)

    def url(self, database: str) -> str:
        return self.postgres.url(database)

    def connect(self, database: str = "postgres") -> Connection:
        """Open a connection of the owner, in autocommit mode."""
        return psycopg.connect(self.url(database), autocommit=True)

    def settings(self, changes: dict[str, str]) -> None:
        """Set these, and everything else back to what PostgreSQL has, and start again by them."""
        with self.connect() as admin:
            admin.execute("ALTER SYSTEM RESET ALL")
            for name, value in (MEASURING | changes).items():
                admin.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
            admin.execute("CHECKPOINT")
        # Not reloaded: the size of the buffers holds from the start on.
        self.postgres.stop()
        self.postgres.start()

    def databases(self) -> set[str]:
        with self.connect() as admin:
            return {name for (name,) in admin.execute("SELECT datname FROM pg_database")}

    def create(self, name: str, template: str = "template1") -> None:
        """Make a database, a copy of the template's files."""
        with self.connect() as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def rename(self, name: str, new_name: str) -> None:
        with self.connect() as admin:
            admin.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(name), sql.Identifier(new_name)
                )
            )

    def drop(self, name: str) -> None:
        with self.connect() as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def forget(self) -> None:
        """Start again with nothing in memory, neither in the server's buffers nor in the kernel's."""
        self.postgres.stop()
        for path in (self.postgres.directory / "data" / "base").rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
        self.postgres.start()

    def cpu_s(self) -> float:
        """Give the CPU time of the server and its processes so far, those that ended included; Linux only."""
        pid = self.postgres.pid
        mine = _stat(Path(f"/proc/{pid}/stat"))
        if pid is None or mine is None:
            raise SystemExit("the server's CPU time is read from /proc, which only Linux has")
        ticks = sum(int(field) for field in mine[11:15])
        for path in Path("/proc").glob("[0-9]*/stat"):
            fields = _stat(path)
            if fields is not None and int(fields[1]) == pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _stat(path: Path) -> list[str] | None:
    """Give the fields of a process from its state on (proc(5) counts that one as the third)."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def literal(text: str) -> LiteralString:
    """Say that a statement comes from a file of ours and not from a user."""
    return text


def require_room(directory: Path, need_bytes: int) -> None:
    """Exit with one line if the disk has too little room."""
    directory.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < need_bytes:
        raise SystemExit(
            f"{directory} has {free_bytes / 1e9:.0f} GB free; expected at least {need_bytes / 1e9:.0f} GB; "
            "ask for fewer --rows, or make room"
        )
