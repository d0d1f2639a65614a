"""`producers gateway http` as operators meet it: one event to its row, stops, outages, bad settings."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.settings import Settings
from producers.cli import main
from tests.fixtures.dead_letters import environment_of
from tests.gateway.http.rig import Raw, a_gateway, a_pulse, a_request, settings_of
from tests.rig import wait_until

pytestmark = pytest.mark.usefixtures("nothing_is_set")
PULSE = json.dumps(a_pulse()).encode()


@dataclass
class Command:
    """The command, running."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def raw(self) -> Raw:
        return Raw(socket.create_connection(("127.0.0.1", self.port), timeout=20))

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True


@contextmanager
def a_command(
    directory: Path, environment: dict[str, str], *, open_files_at_first: int | None = None
) -> Iterator[Command]:
    log_file = directory / "gateway.log"
    shell = (
        []
        if open_files_at_first is None
        else ["sh", "-c", f'ulimit -Sn {open_files_at_first}; exec "$@"', "sh"]
    )
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*shell, sys.executable, "-m", "producers", "gateway", "http", "--port", "0"],
            env=environment,
            stderr=log,
        )
    try:
        wait_until(lambda: b"gateway_started" in log_file.read_bytes(), "the gateway has started")
        lines = [json.loads(line) for line in log_file.read_text().splitlines()]
        [started] = [line for line in lines if line["event"] == "gateway_started"]
        yield Command(process, started["port"], log_file)
    finally:
        process.kill()
        process.wait()


def without_keys(sqs: EmbeddedSqs, queue_url: str) -> dict[str, str]:
    """The environment of a gateway that asks for no key, and has no database."""
    settings = settings_of(sqs, queue_url, database_url="postgresql://nobody@127.0.0.1:1/none")
    return environment_of(settings) | {"GATEWAY_KEYS": "off"}


def test_one_event_goes_in_by_http_and_comes_out_in_the_table(
    settings: Settings, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    registry.publish_schema(db, "pulse", {"type": "object", "required": ["product_sku"]})
    _, key = registry.add_key(db, "acme", "a test's")
    with a_command(tmp_path, environment_of(settings)) as command:
        with httpx.Client(base_url=f"http://127.0.0.1:{command.port}", timeout=30) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready")

            def send(sent_key: str | None, header: str = "authorization", **changes: Any) -> httpx.Response:
                prefix = "Bearer " if header == "authorization" else ""
                headers = {} if sent_key is None else {header: prefix + sent_key}
                return client.post(
                    "/ingest", json=a_pulse(**changes), headers=headers | {"idempotency-key": "h-1"}
                )

            taken = [send(key), send(key, "x-api-key")]
            nobody, wrong, other = send(None), send("ep_wrong"), send(key, tenant_id="globex")
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(30) == 0
        log = command.log()
    subprocess.run(
        [sys.executable, "-m", "processor", "run", "--until-idle", "1"],
        env=environment_of(settings) | {"HTTP_PORT": "0"},
        check=True,
        capture_output=True,
        timeout=60,
    )

    rows = db.execute(
        "SELECT tenant_id, message_id, event_type, payload, delivery_id FROM message"
    ).fetchall()
    deliveries = [answer.json()["delivery_id"] for answer in taken]
    assert [answer.status_code for answer in (*taken, nobody, wrong, other)] == [202, 202, 401, 401, 403]
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert other.json()["code"] == "forbidden"
    [row] = rows
    assert row[:4] == ("acme", "h-1", "pulse", a_pulse())
    assert row[4] in deliveries, "sent twice under one key, stored once"
    assert key not in log
    assert "product_sku" not in log
    assert "postgres" not in log, "no part of the DSN"


def test_a_stop_gives_what_is_inside_its_word_and_ends_with_zero(
    sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path
) -> None:
    with a_command(tmp_path, without_keys(sqs_server, queue_url)) as command, command.raw() as client:
        client.send(a_request(b"", "expect: 100-continue", length=len(PULSE)))
        assert client.answer()[0] == 100, "it is inside"

        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not command.listens(), "no new connection is taken")
        status, headers, _ = client.send(PULSE).answer()

        assert (status, headers["connection"]) == (202, "close")
        assert command.process.wait(30) == 0
        assert "gateway_stopped" in command.log()


def test_a_second_signal_ends_it_at_once(sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path) -> None:
    with a_command(tmp_path, without_keys(sqs_server, queue_url)) as command, command.raw() as client:
        client.send(a_request(b"", "expect: 100-continue", length=len(PULSE)))
        assert client.answer()[0] == 100
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not command.listens(), "it is stopping")

        command.process.send_signal(signal.SIGTERM)

        assert command.process.wait(5) == 128 + signal.SIGTERM


def test_a_queue_that_is_away_is_told_and_nothing_acknowledged_is_missing_after(tmp_path: Path) -> None:
    with EmbeddedSqs(tmp_path / "sqs", port=free_port()) as sqs:
        queue_url = sqs.create_queue("away")
        acknowledged = set()
        with a_gateway(settings_of(sqs, queue_url, gateway_timeout_s=2), sqs) as gateway:

            def send(number: int) -> httpx.Response:
                answer = gateway.post("/ingest", a_pulse(), idempotency_key=str(number))
                if answer.status_code == 202:
                    acknowledged.add(answer.json()["message_id"])
                return answer

            before = [send(number).status_code for number in range(5)]
            sqs.stop()
            away = send(5)
            wait_until(
                lambda: gateway.client.get("/readyz").status_code == 503, "it says that it is not ready"
            )
            alive = gateway.client.get("/livez").status_code
            sqs.start()
            wait_until(lambda: send(6).status_code == 202, "events are taken again")

            queued = {event["id"] for event in gateway.queued()}

    assert before == [202] * 5
    assert (away.status_code, away.json()["code"], alive) == (503, "unavailable", 200)
    assert int(away.headers["retry-after"]) >= 1
    assert acknowledged <= queued
    assert "6" in acknowledged


# ── what can't work ───────────────────────────────────────────────────────────────────────────────────


def test_a_port_that_is_taken_is_told_with_the_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", "http://127.0.0.1:1/0/queue")
    monkeypatch.setenv("GATEWAY_KEYS", "off")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = CliRunner().invoke(main, ["gateway", "http", "--port", str(taken.getsockname()[1])])

    assert done.exit_code == 2
    assert "GATEWAY_PORT" in done.output


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "SQS_QUEUE_URL"),
        ({"SQS_QUEUE_URL": "http://127.0.0.1:1/0/queue"}, "DATABASE_URL"),
        ({"GATEWAY_READ_TIMEOUT_S": "0"}, "GATEWAY_READ_TIMEOUT_S"),
        ({"GATEWAY_HOST": "no such host"}, "GATEWAY_HOST"),
    ],
)
def test_settings_that_can_not_work_end_with_two(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], word: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    done = CliRunner().invoke(main, ["gateway", "http", "--port", "0"])

    assert done.exit_code == 2
    assert word in done.output


def test_a_missing_extra_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "producers.gateway.http.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    done = CliRunner().invoke(main, ["gateway", "http"])

    assert done.exit_code == 2
    assert "pip install 'sqs-event-processor[gateway]'" in done.output
