"""Faults for a whole PostgreSQL server: freeze it, cut its power, fill its disk, promote a standby."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from processor.devstack.servers.binaries import server_account
from processor.devstack.servers.children import free_port
from processor.devstack.servers.postgres import EmbeddedPostgres
from tests.chaos.field import ScenarioFailed

_END_S = 20.0
_LOOK_S = 0.02


def _children(pid: int) -> list[int]:
    said = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in said.stdout.split()]


def _signal_all(server: EmbeddedPostgres, number: signal.Signals) -> None:
    """Reach every process of the server: each of them has a session of its own."""
    pid = server.pid
    assert pid is not None
    for each in _children(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


@contextlib.contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop every process of a server where it stands, as a machine does that hangs; they go on afterwards."""
    assert server.pid is not None
    # Itself first, so that it makes no more of them.
    os.kill(server.pid, signal.SIGSTOP)
    _signal_all(server, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal_all(server, signal.SIGCONT)
        os.kill(server.pid, signal.SIGCONT)


def cut_power(server: EmbeddedPostgres) -> None:
    """Kill every process of a server with -9, none of them able to finish what it was at."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    _signal_all(server, signal.SIGKILL)
    os.kill(server.pid, signal.SIGKILL)
    await_end(server)


def stop_immediately(server: EmbeddedPostgres) -> None:
    """Stop a server as `pg_ctl stop -m immediate` does: its next start begins with crash recovery."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    await_end(server)


def await_end(server: EmbeddedPostgres) -> None:
    """Wait until a server has ended, by whatever cause, and let go of it, so that it can be started again."""
    give_up_at = time.monotonic() + _END_S
    while server.exit_code() is None:
        if time.monotonic() > give_up_at:
            raise ScenarioFailed(f"PostgreSQL did not end within {_END_S:.0f} s:{server.log_tail()}")
        time.sleep(_LOOK_S)
    server.stop()


@contextlib.contextmanager
def synchronous_standby(
    primary: EmbeddedPostgres, directory: Path, *, port: int | None = None
) -> Iterator[EmbeddedPostgres]:
    """Give a standby that every commit of the primary waits for, from now on.

    It follows by the primary's own port, or by another: that of a proxy.
    """
    name = "standby"
    data = directory / "data"
    directory.mkdir()
    source = f"host=127.0.0.1 port={port or primary.port} user=postgres application_name={name}"
    done = subprocess.run(
        [
            *(primary.psql.with_name("pg_basebackup"), "--pgdata", data, "--dbname", source),
            *("--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
    )
    if done.returncode:
        raise ScenarioFailed(f"pg_basebackup failed: {done.stderr[-500:]}")
    _give_to_server(data)
    # What a finished initdb leaves behind in such a directory, so that it is not begun anew.
    shutil.copy(primary.directory / "initialised", directory / "initialised")
    with EmbeddedPostgres(directory, port=free_port(), max_connections=40, passwords=False) as standby:
        with psycopg.connect(primary.url(), autocommit=True) as admin:
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            admin.execute("SELECT pg_reload_conf()")
            give_up_at = time.monotonic() + _END_S
            while (
                admin.execute(
                    "SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
                ).fetchone()
                is None
            ):
                if time.monotonic() > give_up_at:
                    raise ScenarioFailed(f"the standby does not follow:{standby.log_tail()}")
                time.sleep(_LOOK_S)
        yield standby


def _give_to_server(directory: Path) -> None:
    account = server_account()
    if account is not None:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def no_small_disk() -> str:
    """Say why no small disk can be made here; '' if one can."""
    if os.geteuid() != 0:
        return "a small disk takes the right to mount a tmpfs: run it as root"
    try:
        with small_disk(1):
            return ""
    except ScenarioFailed as error:
        return str(error)


@contextlib.contextmanager
def small_disk(size_mib: int) -> Iterator[Path]:
    """Give a directory on a file system of its own and of this size, owned by the server's user."""
    # Not below the scenario's folder, which the server's user can't walk through.
    place = Path(tempfile.mkdtemp(prefix="chaos-disk-"))
    account = server_account()
    owner = f",uid={account.uid},gid={account.gid}" if account is not None else ""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700{owner}", "chaos", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        place.rmdir()
        raise ScenarioFailed(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: whoever still has a file open there does not keep us.
        subprocess.run(["umount", "--lazy", place], check=False)
        place.rmdir()


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill a disk to the brim, whoever else writes there; the room comes back afterwards."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size_bytes in (65_536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size_bytes))
    try:
        yield
    finally:
        ballast.unlink()


def move_wal(server: EmbeddedPostgres, disk: Path) -> None:
    """Put the WAL of a server that is stopped onto another disk."""
    wal = server.directory / "data" / "pg_wal"
    shutil.copytree(wal, disk / "pg_wal")
    shutil.rmtree(wal)
    wal.symlink_to(disk / "pg_wal")
    _give_to_server(disk / "pg_wal")
