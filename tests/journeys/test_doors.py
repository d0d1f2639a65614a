"""Each door with the real things behind it: fake producers go in, rows come out, and the audit holds."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor.devstack.servers.children import free_port
from processor.operations.audit import AuditReport
from producers.cli import main
from tests.broker_servers.kafka import tansu
from tests.broker_servers.rabbitmq import RabbitQueue
from tests.rig import Rig, wait_until

EVENTS = 600
BAD_SHARES = ("--invalid", "0.1", "--duplicates", "0.05")


@contextlib.contextmanager
def a_gateway(rig: Rig, publisher: str = "http") -> Iterator[str]:
    """A gateway without keys before the rig's queue; gives what --url is to be."""
    port, probes_port = free_port(), free_port()
    probes = {"HTTP_PORT": str(probes_port), "GATEWAY_PROBES_PORT": str(probes_port)}
    with (rig.directory / "gateway.log").open("ab") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "producers", "gateway", publisher, "--port", str(port)],
            env=rig.environment() | {"GATEWAY_KEYS": "off"} | probes,
            stderr=log,
        )
    asked_port = port if publisher == "http" else probes_port
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{asked_port}/readyz"), "the gateway is ready")
        yield f"http://127.0.0.1:{port}" if publisher == "http" else f"127.0.0.1:{port}"
    finally:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a URL of our own
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def producers(rig: Rig, *words: str | Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run a command of the producers, with a manifest and a JSON report; gives exit code and report."""
    manifest = rig.directory / f"manifest-{len(rig.manifests)}.jsonl"
    rig.manifests.append(manifest)
    done = subprocess.run(
        [sys.executable, "-m", "producers", *map(str, words), "--manifest", str(manifest), "--json"],
        env=rig.environment() | environment,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def fake(rig: Rig, *words: str, seed: int, **environment: str) -> tuple[int, dict[str, Any]]:
    options = ("--events", str(EVENTS), "--seed", str(seed), *BAD_SHARES)
    return producers(rig, "fake", *options, *words, **environment)


def audited(rig: Rig) -> AuditReport:
    rig.wait_until_empty()
    return rig.audit()


def rows(rig: Rig, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(rig.stack.database_url) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("publisher", ["http", "grpc"])
def test_what_goes_in_by_a_gateway_is_what_goes_in_by_sqs(rig: Rig, publisher: str) -> None:
    rig.start_processor()
    by_sqs_code, by_sqs = fake(rig, seed=1)
    with a_gateway(rig, publisher) as url:
        by_gateway_code, by_gateway = fake(rig, "--to", publisher, "--url", url, seed=2)
        again_code, again = fake(rig, "--to", publisher, "--url", url, seed=1)

    report = audited(rig)
    assert report.holds, report.text()
    assert (by_sqs_code, by_gateway_code, again_code) == (0, 0, 0)
    assert by_sqs["accepted"] == EVENTS
    for one in (by_gateway, again):
        assert one["accepted"] + one["refused"] == EVENTS
        assert one["refused"] == one["refused_as_meant"] > 0, (
            "only what was spoilt on purpose, and some of it"
        )
        assert {refusal["code"] for refusal in one["refusals"]} <= {"malformed", "invalid"}
    # The same seed by another door is the same events: nothing is new.
    stored = rows(rig, "SELECT count(*) FROM message WHERE message_id LIKE '%-1-%'")[0][0]
    repeated = rows(rig, "SELECT count(*) FROM duplicate WHERE message_id LIKE '%-1-%'")[0][0]
    assert repeated >= stored > EVENTS * 0.7


def test_pulses_of_the_load_producer_are_stored_once_each(rig: Rig) -> None:
    rig.start_processor()
    with psycopg.connect(rig.stack.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenant (tenant_id, name) SELECT id, id "
            "FROM (SELECT 'tenant-' || to_char(n, 'FM0000') FROM generate_series(1, 200) n) made(id)"
        )
    with a_gateway(rig) as url:
        options = ("--tenants", "200", "--duration", "2", "--seed", "4")
        code, said = producers(rig, "load", "--url", url, *options)

    report = audited(rig)
    assert report.holds, report.text()
    assert code == 0, said
    assert said["sent"] == said["accepted"] > 200
    assert rows(rig, "SELECT count(*), count(DISTINCT tenant_id) FROM message") == [(said["sent"], 200)]


@pytest.fixture
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A queue of RabbitMQ, or a topic on a real broker of Kafka's protocol."""
    if request.param == "amqp":
        queue: RabbitQueue = request.getfixturevalue("rabbitmq_queue")
        yield queue.source_url
    else:
        with tansu(tmp_path) as broker:
            yield broker.url(broker.topic())


@pytest.mark.xdist_group("rabbitmq")
@pytest.mark.parametrize("broker_url", ["amqp", "kafka"], indirect=True)
def test_what_goes_in_by_a_broker_comes_out_whole(
    rig: Rig, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There may be a password in it, so it is not given on a command line.
    monkeypatch.setenv("SOURCE_URL", broker_url)

    code, said = fake(rig, "--to", broker_url.partition(":")[0], seed=3)
    assert rig.start_processor("--until-idle", "1.5").wait(60) == 0, rig.log()

    assert (code, said["accepted"]) == (0, EVENTS), said
    audit = [sys.executable, "-m", "processor", "audit", "--json", "--manifest", str(rig.manifests[0])]
    done = subprocess.run(audit, env=rig.environment(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert json.loads(done.stdout)["outcomes"]["message"] > EVENTS * 0.7


def said_to(*words: str) -> Result:
    """What `producers` says to these words, where the environment names no broker."""
    return CliRunner().invoke(main, words, env={"SOURCE_URL": None})


def test_a_password_on_the_command_line_is_refused() -> None:
    done = said_to("fake", "--to", "amqp", "--url", "amqp://me:secret@h/?queue=q")

    assert done.exit_code == 2
    assert "SOURCE_URL" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--to", "http"), "--to http needs --url"),
        (("--to", "grpc"), "--to grpc needs --url"),
        (("--to", "kafka"), "SOURCE_URL"),
        (("--to", "amqp", "--url", "kafka://h/t"), "name different brokers"),
        (("--to", "http", "--url", "http://127.0.0.1:1/x?y"), "expected http://HOST:PORT"),
    ],
)
def test_what_leads_nowhere_is_said_before_anything_is_sent(words: tuple[str, ...], expected: str) -> None:
    done = said_to("fake", *words)

    assert done.exit_code == 2
    assert expected in done.output


def test_a_door_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "producers.publishers.grpc", raising=False)

    done = said_to("fake", "--to", "grpc", "--url", "127.0.0.1:1")

    assert done.exit_code == 2
    assert "pip install 'sqs-event-processor[gateway]'" in done.output
