"""`processor dispatch` as it runs all day: through outages of sink and database, until it is told to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.devstack.servers.children import free_port
from processor.devstack.servers.sink import GOOD, Behaviour, Receiver
from tests.chaos.traffic.tcp_proxy import TcpProxy
from tests.fixtures.database import Saver
from tests.fixtures.usage import a_pulse, lines, states
from tests.rig import wait_until

Db = psycopg.Connection[Any]

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("pulses")


@dataclass
class Dispatcher:
    """A dispatcher in a process of its own."""

    process: subprocess.Popen[bytes]
    http_port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """What a probe answers; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def dispatcher(database_url: str, receiver: Receiver, tmp_path: Path) -> Iterator[Dispatcher]:
    with a_dispatcher(database_url, receiver, tmp_path) as it:
        yield it


@contextlib.contextmanager
def a_dispatcher(
    database_url: str, receiver: Receiver, tmp_path: Path, every_s: float = 0.1
) -> Iterator[Dispatcher]:
    port, log = free_port(), tmp_path / "log"
    environment = {
        "DATABASE_URL": database_url,
        "USAGE_SINK_URL": receiver.url,
        "USAGE_SINK_TOKEN": "sesame",
        "USAGE_SINK_TIMEOUT_S": "3",
        "USAGE_DISPATCH_EVERY_S": str(every_s),
        "RETRY_WAIT_S_MAX": "0.2",
        "HTTP_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "processor", "dispatch"],
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    it = Dispatcher(process, port, log)
    try:
        wait_until(lambda: it.get("/readyz")[0] == 200, "it is ready")
        yield it
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(10)


def sums(db: Db) -> list[Any]:
    return [value for (value,) in db.execute("SELECT value FROM usage ORDER BY value").fetchall()]


def test_it_outlives_the_sink_and_the_database_and_ends_when_told(
    saver: Saver, db: Db, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    receiver.behaviour = Behaviour(status=503, accepts=False)
    saver.save(a_pulse("0.1", "secret-sku"), a_pulse("0.2", "secret-sku"))

    wait_until(lambda: dispatcher.get("/readyz")[0] == 503, "it is in trouble")
    assert dispatcher.get("/livez")[0] == 200
    assert "sink: status 503" in dispatcher.get("/readyz")[1]
    # Windows close all the same.
    assert states(db) == {"secret-sku": "closed"}

    receiver.behaviour = GOOD
    wait_until(lambda: states(db) == {"secret-sku": "handed_over"}, "the sink has it")
    wait_until(lambda: dispatcher.get("/readyz")[0] == 200, "it is ready again")
    none_waits = 'processor_usage_lines_waiting{state="waiting"} 0.0'
    wait_until(lambda: none_waits in dispatcher.get("/metrics")[1], "it has counted what waits")
    assert "processor_usage_lines_handed_over_total 1.0" in dispatcher.get("/metrics")[1]

    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'event-processor dispatch' AND datname = current_database()"
    )
    saver.save(a_pulse("0.4", "secret-sku"))
    wait_until(lambda: len(receiver.books.lines) == 2, "the revision has come")

    dispatcher.process.send_signal(signal.SIGTERM)
    assert dispatcher.process.wait(10) == 0
    said = dispatcher.said()
    assert '"event": "outage"' in said
    assert '"event": "outage_over"' in said
    assert "secret-sku" not in said
    assert "sesame" not in said
    assert receiver.books.changed == []
    assert list(receiver.books.sums().values()) == sums(db)


@pytest.mark.parametrize("fault", [TcpProxy.refuse, TcpProxy.fall_silent])
def test_it_finds_out_between_two_rounds_that_the_database_is_away_and_when_it_is_back(
    database_url: str, receiver: Receiver, tmp_path: Path, fault: Callable[[TcpProxy], None]
) -> None:
    parts = urlsplit(database_url)
    proxy = TcpProxy(parts.port or 5432)
    by_proxy = database_url.replace(f":{parts.port}/", f":{proxy.port}/")
    with a_dispatcher(by_proxy, receiver, tmp_path, every_s=3600) as it:
        first_round = "processor_usage_lines_waiting{"
        wait_until(lambda: first_round in it.get("/metrics")[1], "the first round is over")
        fault(proxy)
        wait_until(lambda: "database: " in it.get("/readyz")[1], "the outage shows on /readyz", wait_s=15)
        assert 'processor_database_errors_total{remedy="reconnect"}' in it.get("/metrics")[1]
        proxy.heal()
        wait_until(lambda: it.get("/readyz")[0] == 200, "it is noticed that it is back", wait_s=25)
    proxy.close()


def test_a_stop_lets_the_request_under_way_end(
    saver: Saver, db: Db, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    receiver.behaviour = Behaviour(wait_s=1)
    saver.save(a_pulse(1))
    wait_until(lambda: len(receiver.requests) == 1, "a request is under way")

    dispatcher.process.send_signal(signal.SIGTERM)

    assert dispatcher.process.wait(10) == 0
    assert lines(db) == [("disk", 1, 1, 1, True)]
