"""What other users of this machine get from the servers of `processor dev`: no row, and no way in."""

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.devstack.servers.postgres import EmbeddedPostgres
from tests.journeys.dev import environment

two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
"""For what takes two real users."""


def as_another_user(attempt: Callable[[], object]) -> int:
    """Make the attempt as an ordinary user of the system: 0 if it succeeded, 3 if it was refused."""
    other = pwd.getpwnam("daemon")
    pid = os.fork()
    if pid == 0:
        code = 4
        try:
            os.setgroups([])
            os.setgid(other.pw_gid)
            os.setuid(other.pw_uid)
            attempt()
            code = 0
        except (psycopg.OperationalError, PermissionError):
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def bare(server: EmbeddedPostgres) -> str:
    """The URL as somebody else would guess it."""
    return urlsplit(server.url())._replace(query="").geturl()


@two_users
def test_another_user_gets_no_connection(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, fsync=False) as server:
        guessed = bare(server).replace("postgres@", "postgres:postgres@")
        for url in (server.url(), bare(server), guessed, bare(server) + "?replication=database"):
            assert as_another_user(lambda url=url: psycopg.connect(url).close()) == 3, url  # type: ignore[misc]
        assert as_another_user((tmp_path / "pgpass").read_text) == 3
        psycopg.connect(server.url()).close()


@two_users
def test_a_server_without_passwords_lets_another_user_in(tmp_path: Path) -> None:
    """So that the test above is known to see one who gets in."""
    with EmbeddedPostgres(tmp_path, fsync=False, passwords=False) as server:
        assert as_another_user(lambda: psycopg.connect(server.url()).close()) == 0


def test_everybody_is_asked_for_a_password(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "it's 100% here", fsync=False) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(bare(server))
        with psycopg.connect(server.url()) as connection:
            rules = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        shown = subprocess.run(
            [server.psql, "-XAtc", "SELECT 1", server.url()], capture_output=True, text=True, check=True
        )

    assert rules == [("scram-sha-256",)]
    assert shown.stdout == "1\n"
    assert stat.S_IMODE((tmp_path / "it's 100% here" / "pgpass").stat().st_mode) == 0o600


def test_data_of_a_release_that_trusted_everybody_is_taken_over(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, fsync=False, passwords=False) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS figure")
        assert not (tmp_path / "pgpass").exists()

    with EmbeddedPostgres(tmp_path, fsync=False) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(bare(server))
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT figure FROM kept").fetchone() == (42,)


def test_the_rules_are_written_through_no_link(tmp_path: Path) -> None:
    """Run as root, the data are the server's account's, which is no account of ours alone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("as it was")
    with EmbeddedPostgres(tmp_path / "server", fsync=False):
        pass
    rules = tmp_path / "server" / "data" / "pg_hba.conf"
    rules.unlink()
    rules.symlink_to(elsewhere)

    with EmbeddedPostgres(tmp_path / "server", fsync=False) as server:
        psycopg.connect(server.url()).close()

    assert elsewhere.read_text() == "as it was"
    assert not rules.is_symlink()


def of_somebody_else(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, pwd.getpwnam("daemon").pw_uid, -1)


def a_link(path: Path) -> None:
    path.with_name("elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.with_name("elsewhere"))


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def written_by_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def written_by_the_group(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(of_somebody_else, "belongs to another user", marks=two_users),
        (a_link, "is a link"),
        (a_link_to_nowhere, "is a link"),
        (Path.touch, "is a link or a file"),
        (written_by_others, "can be written by others (mode 0777)"),
        (written_by_the_group, "can be written by others (mode 0770)"),
    ],
)
def test_dev_refuses_a_directory_that_is_not_its_users_alone(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / ".processor")

    dev = subprocess.run(
        [sys.executable, "-m", "processor", "dev"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert dev.returncode == 2
    assert words in dev.stderr
    assert not list(tmp_path.rglob("lock"))
