"""A PostgreSQL server of our own on 127.0.0.1, kept in one directory, for demo, play and tests.

DIRECTORY/data          the database cluster
DIRECTORY/initialised   written last by initdb's caller: without it, data is begun again
DIRECTORY/pgpass        the superuser's password; without it, a new one is set at the next start
DIRECTORY/lock          held by the server and all its children, so that no two work on the data
DIRECTORY/server.log    what the server said since its last start
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

from processor.devstack.servers.binaries import can_reach, find_binaries, server_account
from processor.devstack.servers.children import (
    POLL_S,
    Child,
    DevstackError,
    DirectoryLock,
    port_is_free,
    preferred_port,
    spawn,
    start_log,
    uninterrupted,
)
from processor.devstack.servers.passwords import SUPERUSER, new_password, write_passfile, write_rules

START_S = 120.0
LOCK_S = 10.0
PORT_ATTEMPTS = 3
STATUS_LINE = 7  # of postmaster.pid, counted from 0
STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))


class EmbeddedPostgres:
    """One server, started and stopped by us; listens to this machine only, and asks everybody for a password.

    `directory` keeps the data between starts. With `fsync` off the server is faster, and a crash of the
    machine (not of a process) may ruin the data; without `passwords` it trusts every user of the machine: fit
    for tests alone, both. Run as root, the server itself runs as `nobody`. Start it from the main thread: on
    Linux the server gets a shutdown signal when the thread that started it ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        only_there: bool = True,
        fsync: bool = True,
        max_connections: int = 100,
        passwords: bool = True,
    ) -> None:
        self.directory = directory.absolute()
        self._wanted_port = port if only_there else None
        self._preferred_port = port
        self._fsync = fsync
        self._max_connections = max_connections
        self._passwords = passwords
        self._account = server_account()
        self._binaries: Path | None = None
        self._child: Child | None = None
        self._lock = DirectoryLock(self.directory / "lock")
        self.port = port or 0

    def start(self) -> None:
        """Return once the server takes connections; data that exists is kept, a half-made one is begun again.

        Raises DevstackError if the programs are missing, the port is taken, the data belongs to another major
        version, or another process works on the directory. Nothing is left running then.
        """
        if self._child is not None and self._child.exit_code() is None:
            return
        self._binaries = find_binaries(self._account)
        if self._wanted_port is not None and not port_is_free(self._wanted_port):
            raise DevstackError(
                f"another program listens on 127.0.0.1:{self._wanted_port}; expected a free port for "
                "PostgreSQL; stop that program or leave the port out to get a free one"
            )
        try:
            self._own_directory()
            self._initialise()
            self._protect()
            self._launch()
        except OSError as error:
            self.stop()
            raise DevstackError(
                f"PostgreSQL can't be started in {self.directory}: {error}; expected a directory "
                "that is ours; if another user made it, remove it or work elsewhere"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut down cleanly, all connections cut; safe to call at any time and more than once."""
        if self._child is not None:
            self._child.stop(*STOP)
            self._child = None
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str = "") -> str:
        """Give the connection URL: the superuser's names the file of its password, which libpq reads."""
        who = f"{user}:{password}" if password else user
        file = f"?passfile={quote(str(self._passfile))}" if self._passwords and user == SUPERUSER else ""
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}{file}"

    def exit_code(self) -> int | None:
        """Give None while the server runs, else its exit code, negative for a signal."""
        return None if self._child is None else self._child.exit_code()

    def log_tail(self) -> str:
        """Give the last lines of the server's log, each on a line of its own, for an error message."""
        return "" if self._child is None else self._child.log_tail()

    @property
    def pid(self) -> int | None:
        """The process id of the server, None if it was not started."""
        return None if self._child is None else self._child.pid

    @property
    def psql(self) -> Path:
        """The `psql` that belongs to this server."""
        if self._binaries is None:
            self._binaries = find_binaries(self._account)
        return self._binaries / "psql"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _stamp(self) -> Path:
        return self.directory / "initialised"

    @property
    def _passfile(self) -> Path:
        return self.directory / "pgpass"

    def _own_directory(self) -> None:
        """Make sure that no other server works on the data, and that a stale trace of one stops nobody."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire(LOCK_S):
            owner = _postmaster_pid(self._data)
            if owner is None or not _is_orphan(owner) or not _works_in(owner, self._data):
                raise DevstackError(
                    f"another process{f' (PostgreSQL, pid {owner})' if owner else ''} works on "
                    f"{self.directory}; expected to be alone there; stop it first"
                )
            # Its parent was killed where the kernel doesn't tell children so.
            os.kill(owner, signal.SIGINT)
            if not self._lock.acquire(START_S):
                raise DevstackError(
                    f"a leftover PostgreSQL (pid {owner}) does not stop; end it, then try again"
                )
        owner = _postmaster_pid(self._data)
        if owner is not None and not _works_in(owner, self._data):
            # After a kill the number may belong to another process by now, which PostgreSQL takes for
            # a server and refuses to start. We hold the lock, so we know that there is none.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self) -> None:
        """Run initdb unless a finished one stands there; a data directory without the stamp is half-made."""
        if self._stamp.exists() and (self._data / "PG_VERSION").exists():
            found, ours = (self._data / "PG_VERSION").read_text().strip(), self._major_version()
            if found != ours:
                raise DevstackError(
                    f"{self._data} was made by PostgreSQL {found}, but the programs here are version {ours}; "
                    "start over with --fresh, or install the old version"
                )
            return
        self._stamp.unlink(missing_ok=True)
        self._passfile.unlink(missing_ok=True)
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(self._data, self._account.uid, self._account.gid)
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        # With no rule at all that lets anybody in: _protect writes them.
        options = [f"--username={SUPERUSER}", "--auth=reject", "--encoding=UTF8", f"--locale={locale}"]
        self._run("initdb", [*options, *([] if self._fsync else ["--no-sync"])])
        if self._child is None or self._child.process.wait() != 0:
            raise DevstackError(f"initdb failed in {self.directory}; it said:{self.log_tail()}")
        self._child = None
        self._stamp.write_text(self._major_version() + "\n")

    def _protect(self) -> None:
        """Write who is let in; set a password unless one is set, in data of earlier releases, too.

        The server sets it before it listens to anybody (single-user mode).
        """
        write_rules(self._data, "scram-sha-256" if self._passwords else "trust", self._account)
        if not self._passwords or self._passfile.exists():
            return
        password = new_password()
        with tempfile.TemporaryFile() as statement:
            statement.write(f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'\n".encode())
            statement.seek(0)
            # Options after the name of the database would be taken for more names.
            self._run("postgres", ["-c", "password_encryption=scram-sha-256", "template1"], statement)
        if self._child is None or self._child.process.wait() != 0:
            raise DevstackError(f"no password can be set in {self.directory}; it said:{self.log_tail()}")
        self._child = None
        write_passfile(self._passfile, password)

    def _launch(self) -> None:
        for _ in range(PORT_ATTEMPTS):
            self.port = self._wanted_port or preferred_port(self._preferred_port)
            options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
            settings = {"max_connections": self._max_connections, "timezone": "UTC", "log_timezone": "UTC"}
            if not self._fsync:
                settings |= {"fsync": "off", "full_page_writes": "off"}
            for name, value in settings.items():
                options += ["-c", f"{name}={value}"]
            self._run("postgres", options)
            if self._ready():
                return
            # Somebody took the free port between our look and the server's; another one is as good.
            if self._wanted_port is not None or "could not bind" not in self.log_tail():
                break
            self._preferred_port = None
        raise DevstackError(
            f"PostgreSQL did not start in {self.directory}; its log ends with:{self.log_tail()}"
        )

    def _run(self, program: str, options: list[str], statement: BinaryIO | None = None) -> None:
        """Start a program on the data as `self._child`, with a new log; a statement in single-user mode."""
        assert self._binaries is not None  # noqa: S101 - start() has looked for them
        log = self.directory / "server.log"
        start_log(log)
        data = str(self._data)
        if self._account is not None and not can_reach(self._data, self._account):
            # `nobody` can't walk down to the data of a project below a closed home directory, but a
            # process that is there already may stay. So we start it there, and this names the place.
            data = "/proc/self/cwd"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))
        }
        with uninterrupted():
            self._child = spawn(
                program,
                [self._binaries / program, *(["--single"] if statement else []), "-D", data, *options],
                environment=environment | {"LANG": "C", "LC_ALL": "C"},
                directory=self._data,
                log=log,
                stdin=statement or subprocess.DEVNULL,
                account=self._account,
                keep_open=[] if self._lock.descriptor is None else [self._lock.descriptor],
                death_signal=signal.SIGINT,
            )

    def _ready(self) -> bool:
        """Wait until our own server says that it is ready; False if it ended or took too long.

        It says so in postmaster.pid, beside its process id: a connection could reach a stranger's server. A
        standby says it in its own word, as soon as it may be read.
        """
        assert self._child is not None  # noqa: S101 - called after _run
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._child.exit_code() is None:
            lines = _postmaster_lines(self._data)
            if (
                len(lines) > STATUS_LINE
                and lines[0] == str(self._child.pid)
                and lines[STATUS_LINE].strip() in ("ready", "standby")
            ):
                return True
            time.sleep(POLL_S)
        return False

    def _major_version(self) -> str:
        assert self._binaries is not None  # noqa: S101 - start() has looked for them
        said = subprocess.run(  # noqa: S603 - a program that we have found ourselves
            [self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
        return said.split()[2].split(".")[0]


def _postmaster_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _postmaster_pid(data: Path) -> int | None:
    """Give the process id that the data directory names as its server's, if such a process exists."""
    lines = _postmaster_lines(data)
    if not lines or not lines[0].lstrip("-").isdigit():
        return None
    pid = abs(int(lines[0]))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # It exists, and is another user's: `nobody`'s, say.
    return pid


def _works_in(pid: int, data: Path) -> bool:
    """Say whether the process is at work in this data directory, where a PostgreSQL server always is."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return str(data) in _ask_ps(pid, "command")


def _is_orphan(pid: int) -> bool:
    return _ask_ps(pid, "ppid") == "1"


def _ask_ps(pid: int, column: str) -> str:
    return subprocess.run(  # noqa: S603 - a number and a word of ours
        ["ps", "-o", f"{column}=", "-p", str(pid)],  # noqa: S607 - it has no one place
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
