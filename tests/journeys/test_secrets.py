"""Nothing of a payload, an id that a sender chose, a DSN or a secret is in what a process says of itself."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from processor.database.sqlstates import Remedy
from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import Reason
from processor.model import Outcome
from tests.rig import wait_until

Db = psycopg.Connection[Any]
PROCESSOR = [sys.executable, "-m", "processor"]
PRODUCERS = [sys.executable, "-m", "producers"]


@dataclass
class Canaries:
    """Random words, each planted in one place; none of them may be seen again."""

    planted: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, place: str) -> str:
        return self.planted.setdefault(place, "c" + secrets.token_hex(8))

    def seen_in(self, output: str) -> set[str]:
        """Name the places whose word is there: as it is, in hex, in base64, or in any case."""
        return {place for place, word in self.planted.items() if any(form in output for form in _forms(word))}


def _forms(word: str) -> Iterator[str]:
    yield from (word, word.upper(), word.encode().hex(), word.encode().hex().upper())
    for offset in range(3):
        # Wherever it begins in a longer text; the letters at both ends depend on their neighbours.
        yield base64.b64encode(b"x" * offset + word.encode()).decode()[4 if offset else 0 : -4]


def _with_password(url: str, password: str, **changes: Any) -> str:
    parts = urlsplit(url)
    host = f"{parts.hostname}:{changes.pop('port', parts.port)}"
    user = changes.pop("user", parts.username)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}", **changes))


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def environment(
    canaries: Canaries, database_url: str, queue_url: str, sqs_server: EmbeddedSqs
) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "DATABASE_URL": _with_password(database_url, canaries["database password"]),
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": canaries["secret key"],
        "AWS_SESSION_TOKEN": canaries["session token"],
        "HTTP_PORT": str(free_port()),
        "LOG_LEVEL": "DEBUG",
        "RECEIVE_WAIT_S": "1",
        "RETRY_WAIT_S_MAX": "0.2",
    }


def _said(command: list[str], environment: Mapping[str, str], *, codes: set[int], stdin: str = "") -> str:
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in codes, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def _send_all_kinds(sqs_server: EmbeddedSqs, queue_url: str, canaries: Canaries) -> int:
    event = {"id": canaries["id"], "tenant_id": "acme", "event_type": "order.created"}
    bodies = [
        json.dumps(event | {"payload": {"total": 1, "note": canaries["payload"]}}),
        json.dumps(event | {"payload": {"total": 2, "note": canaries["conflicting payload"]}}),
        json.dumps(event | {"id": canaries["bad id"], "payload": {"total": canaries["bad payload"]}}),
        json.dumps(
            event | {"id": canaries["zero id"], "payload": {"total": 1, "note": canaries["zero"] + "\0"}}
        ),
        json.dumps(event | {"tenant_id": canaries["tenant"], "payload": {}}),
        json.dumps(event | {"event_type": canaries["event type"], "payload": {}}),
        json.dumps(event | {"producer": canaries["producer"] + "\n", "payload": {}}),
        "{" + canaries["not JSON"],
        canaries["too large"] * 10_000,
    ]
    client = sqs_server.client()
    for body in bodies:
        client.send_message(
            QueueUrl=queue_url,
            MessageBody=body,
            MessageAttributes={
                canaries["name"]: {"DataType": "String", "StringValue": canaries["attribute"]}
            },
        )
    return len(bodies)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_events_of_all_kinds_leave_no_word_in_the_log(
    canaries: Canaries,
    environment: dict[str, str],
    sqs_server: EmbeddedSqs,
    queue_url: str,
    db: Db,
    log_format: str,
) -> None:
    count = _send_all_kinds(sqs_server, queue_url, canaries)

    said = _said(
        [*PROCESSOR, "run", "--until-idle", "1"],
        environment | {"LOG_FORMAT": log_format, "BODY_BYTES_MAX": "100000"},
        codes={0},
    )

    row = db.execute("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM rejection)").fetchone()
    assert row == (count,)
    reasons = {found for (found,) in db.execute("SELECT reason FROM rejection").fetchall()}
    assert {"unstorable", "id_conflict", "schema_violation", "not_json", "too_large"} <= reasons
    assert "save_failed" in said
    assert canaries.seen_in(said) == set()


def test_a_row_that_a_constraint_of_somebody_s_refuses_is_not_quoted(
    canaries: Canaries, environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    db.execute("ALTER TABLE message ADD CONSTRAINT no_refused CHECK (NOT payload::text LIKE '%refuse%')")
    payload = {"total": 1, "note": "refuse " + canaries["row"]}
    event = {"id": canaries["refused id"], "tenant_id": "acme", "event_type": "order.created"}
    sqs_server.client().send_message(QueueUrl=queue_url, MessageBody=json.dumps(event | {"payload": payload}))

    said = _said([*PROCESSOR, "run", "--until-idle", "1"], environment, codes={1})

    assert "no_refused" in said
    assert canaries.seen_in(said) == set()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_fault_of_the_database_is_named_and_not_quoted(
    canaries: Canaries,
    environment: dict[str, str],
    sqs_server: EmbeddedSqs,
    queue_url: str,
    db: Db,
    log_format: str,
) -> None:
    """A trigger of somebody's, whose error repeats the row: it is none of the sender, so the process ends."""
    db.execute(
        "CREATE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'bad % %', NEW.message_id, NEW.payload USING ERRCODE = '42501'; END $$;"
        "CREATE TRIGGER speak BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION speak()"
    )
    _send_all_kinds(sqs_server, queue_url, canaries)

    said = _said([*PROCESSOR, "run"], environment | {"LOG_FORMAT": log_format}, codes={1})

    assert "42501" in said
    assert canaries.seen_in(said) == set()


def test_an_outage_is_told_without_saying_of_whom(canaries: Canaries, environment: dict[str, str]) -> None:
    port = environment["HTTP_PORT"]
    away = environment | {
        "DATABASE_URL": f"postgresql://{canaries['user']}:{canaries['password']}@127.0.0.1:1/{canaries['database']}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:1/{canaries['path']}",
    }
    process = subprocess.Popen(
        [*PROCESSOR, "run"], env=away, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_until(lambda: "Connection refused" in _page(port, "readyz"), "/readyz tells the trouble")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", int(port))):
            """Every address of this machine but the one would answer, were it bound to more than that."""
        pages = [_page(port, name) for name in ("readyz", "livez", "metrics", canaries["asked"])]
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)

    assert "outage" in said
    assert canaries.seen_in(said + "".join(pages)) == set()


def test_no_sender_makes_a_series_of_metrics(
    canaries: Canaries, environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    known = {reason.value for reason in Reason} | {outcome.value for outcome in Outcome} | {""}
    known |= {remedy.name.lower() for remedy in Remedy} | {"visible", "in_flight", "delayed"}
    known |= {"receive", "delete", "extend", "release", "depth"}
    count = _send_all_kinds(sqs_server, queue_url, canaries)
    process = subprocess.Popen([*PROCESSOR, "run"], env=environment, stderr=subprocess.DEVNULL)
    try:
        done = "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM rejection)"
        wait_until(lambda: db.execute(done).fetchone() == (count,), "all have an outcome")
        page = _page(environment["HTTP_PORT"], "metrics")
    finally:
        process.terminate()
        process.wait(30)

    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    values = {
        value
        for sample in samples
        if sample.name.startswith("processor_")
        for label, value in sample.labels.items()
        if label != "le"
    }
    assert "rejected" in values
    assert values <= known


def _page(port: str, name: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


COMMANDS = ["migrate", "check", "run", "audit"]
BAD_URLS = [
    "postgresql://{user}:{password}@127.0.0.1:1/{database}",
    "postgresql://{user}:{password}@server/{database}",
    "postgresql://{user}:{password}@[::1/{database}",
    "postgresql://{user}:{password}@127.0.0.1:{password}/{database}",
    "postgresql://{user}:{password}@127.0.0.1/{database}?{password}=1",
    "postgresql://{user}:{password}@127.0.0.1/{database}?sslmode={password}",
    "{user}:{password}@server",
    "postgresql://{user}:{password}@{database}.invalid/{database}",
    "postgresql://{user}:pass%zz{password}@127.0.0.1:1/{database}",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_command_that_fails_repeats_nothing_of_the_url(
    canaries: Canaries, environment: dict[str, str], server_url: str, url: str
) -> None:
    words = {name: canaries[name] for name in ("user", "password", "database")}
    text = url.format(**words).replace("@server", "@" + urlsplit(server_url).netloc.rpartition("@")[2])

    for command in COMMANDS if url == BAD_URLS[1] else ["check"]:
        said = _said([*PROCESSOR, command], environment | {"DATABASE_URL": text}, codes={1, 2, 3, 4})
        assert said
        assert canaries.seen_in(said) == set(), (command, said)


def test_a_producer_that_fails_repeats_no_event_and_no_secret(
    canaries: Canaries, environment: dict[str, str]
) -> None:
    line = json.dumps({"id": "1", "tenant_id": canaries["tenant"], "payload": {"x": canaries["payload"]}})
    away = environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}

    said = _said([*PRODUCERS, "send", "-"], environment, stdin=line + "\n{" + canaries["half"], codes={1, 2})
    said += _said([*PRODUCERS, "fake", "--events", "1", "--wait", "1"], away, codes={4})

    assert canaries.seen_in(said) == set(), said
