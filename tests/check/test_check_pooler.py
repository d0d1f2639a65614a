"""`processor check` behind a pooler: a stand-in always, and a real PgBouncer where there is one."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.check.database import check_database
from processor.devstack.servers.children import free_port
from tests.fixtures.check import look_at_database, problems

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]


class _Lent:
    """One of several client connections of a pooler that lends them one server session by turns."""

    def __init__(self, session: Db) -> None:
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """The session stays with the pooler."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_two_connections_with_one_server_session_give_a_pooler_away(db: Db) -> None:
    lend: Callable[[], Any] = lambda: _Lent(db)  # noqa: E731 - a stand-in for a function of connections

    findings = {finding.what: finding for finding in check_database(lend, timeout_s=20)}

    assert "pooler" in problems(findings)
    assert "pool_mode = session" in (findings["pooler"].advice or "")


@pytest.fixture(params=["transaction", "session"])
def pooler_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """The URL of a real PgBouncer in front of the database, in each of the two modes."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    server, port = urlsplit(database_url), free_port()
    name = server.path.strip("/")
    # PgBouncer refuses to run as root, and the user it runs as then must be able to read this.
    identity: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="event-processor-pgbouncer-") as directory:
        configuration = Path(directory) / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n{name} = host={server.hostname} port={server.port} user={server.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {request.param}\n"
        )
        Path(directory).chmod(0o755)
        process = subprocess.Popen(
            [program, "-q", str(configuration)],
            stderr=subprocess.PIPE,
            **(identity if os.geteuid() == 0 else {}),
        )
        try:
            _wait_for_port(port, process)
            yield f"postgresql://{server.username}@127.0.0.1:{port}/{name}"
        finally:
            process.terminate()
            process.communicate()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("pgbouncer does not listen")


def test_a_real_pgbouncer_is_a_problem_only_in_transaction_mode(
    pooler_url: str, request: pytest.FixtureRequest
) -> None:
    mode = request.node.callspec.params["pooler_url"]

    assert ("pooler" in problems(look_at_database(pooler_url))) == (mode == "transaction")
