"""What the registry says of a queue: from the command to the row, in every process, and in a replay."""

import json
import threading
from contextlib import closing
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.database.connection import connect
from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.operations.queue_rules import set_queue
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.validation.tenant_bindings import Bindings
from processor.wiring.commands import replay, run_check
from processor.wiring.service import Stops, run
from tests.builders import QUEUE, a_delivery
from tests.fixtures.check import with_changes
from tests.fixtures.database import LogIn, Saver, a_bound_saver, books, count

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

APP = {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
"""How the event process app has it."""


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `processor` with a database and nothing else set."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return call


def version(db: Db) -> int:
    row = db.execute("SELECT version FROM registry").fetchone()
    assert row is not None
    return int(row[0])


def app_body(**changes: Any) -> bytes:
    event = {"event_type": "order.created", "client_id": 7, "message": {"total": 1.5}, "host": "a"}
    return json.dumps(event | changes).encode()


def test_a_mapping_that_is_set_takes_the_bodies_of_the_event_process_app(
    command: Any, saver: Saver, db: Db
) -> None:
    registry.add_tenant(db, "7")
    assert saver.outcomes(a_delivery(app_body())) == ["envelope_invalid"]

    done = command("queue", "set", QUEUE, *(f"--map={name}={at}" for name, at in APP.items()))

    assert done.exit_code == 0, done.output
    assert saver.outcomes(a_delivery(app_body())) == ["stored"]
    assert db.execute("SELECT tenant_id, event_type, payload, context FROM message").fetchall() == [
        ("7", "order.created", {"total": 1.5}, {"host": "a"})
    ]


def test_a_redelivery_has_its_outcome_whatever_is_said_of_its_queue_by_then(
    command: Any, saver: Saver, db: Db
) -> None:
    registry.add_tenant(db, "7")
    body = app_body(x="id-x", y="id-y", tenant_id="acme", payload={"total": 1})
    rest = [f"--map={name}={at}" for name, at in APP.items()]
    for name, rules in (
        ("d-1", ["--map=id=/x", *rest]),
        ("d-2", ["--map=id=/y", *rest]),
        ("d-3", ["--unset=map"]),
    ):
        assert command("queue", "set", QUEUE, *rules).exit_code == 0
        assert saver.outcomes(a_delivery(body, delivery_id=name)) == ["stored"]

    for change in (["queue", "set", QUEUE, "--map=id=/x", "--tenant=acme"], ["queue", "remove", QUEUE]):
        assert command(*change).exit_code == 0
        found = [saver.outcomes(a_delivery(body, delivery_id=f"d-{n}", receive_count=2)) for n in (1, 2, 3)]
        assert found == [["redelivered"]] * 3
    assert books(db) == {"message": 3, "duplicate": 0, "rejection": 0}


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_named_changes_and_the_rest_stays_and_each_can_be_unset(command: Any) -> None:
    command("queue", "set", QUEUE, "--unwrap", "sns", "--tenants", "acme, globex")
    command("queue", "set", QUEUE, "--map", "id=/x", "--event-type", "pulse")
    command("queue", "set", QUEUE, "--register", "tenants", "--register-max", "7")

    assert json.loads(command("queue", "show", QUEUE, "--json").output) | {"registered_at": None} == {
        "queue": QUEUE,
        "unwrap": "sns",
        "mapping": {"id": "/x"},
        "tenants": ["acme", "globex"],
        "event_type": "pulse",
        "registers_tenants": True,
        "registers_max": 7,
        "event_types": None,
        "producers": None,
        "may_void": True,
        "may_correct": True,
        "registered_at": None,
    }
    for option, line in (
        ("unwrap", "unwrap            -"),
        ("map", "mapping           -"),
        ("tenants", "tenants           -"),
        ("event-type", "event_type        -"),
    ):
        assert command("queue", "set", QUEUE, "--unset", option).exit_code == 0
        assert line in command("queue", "show", QUEUE).output
    assert f"{QUEUE}: no rules" in command("queue", "set", QUEUE, "--unset", "register").output
    assert command("queue", "list", "--json").output == "[]\n"


def test_queues_are_listed_shown_and_removed(command: Any) -> None:
    assert "no queue has rules; set some: processor queue set NAME" in command("queue", "list").output
    command("queue", "set", "orders", "--tenant", "acme", "--register", "tenants")

    listed = command("queue", "list").output
    assert "orders  tenants acme; registers tenants, at most 1000 an hour" in listed
    assert "tenants           acme" in command("queue", "show", "orders").output
    bounded = command("queue", "set", "later", "--register-max", "5").output
    assert "queue later: registers no tenants; at most 5 an hour once --register is set" in bounded
    assert command("queue", "remove", "orders").exit_code == 0
    for arguments in (("show", "orders"), ("remove", "orders")):
        refused = command("queue", *arguments)
        assert refused.exit_code == 1
        assert "queue 'orders' has no rules" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "no rule is given"),
        (("--tenant", "a", "--tenants", "b"), "not both"),
        (("--tenants", "a,,b"), "is no tenant id"),
        (("--unwrap", "sqs"), "is not one of"),
        (("--register", "types"), "is not"),
        (("--register-max", "0"), "is not in the range"),
        (("--map", "tenant_id=client"), "not a JSON pointer"),
        (("--map", "total=/x"), "expected FIELD=/POINTER"),
        (("--unset", "map", "--map", "id=/x"), "--unset map contradicts"),
        (("--event-type", ""), "queue_event_type_fit"),
        (("--event-type", "a\nb"), "queue_event_type_fit"),
        (("--event-type", "\ud800"), "(text)"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_words_and_leaves_nothing(
    command: Any, db: Db, options: tuple[str, ...], words: str
) -> None:
    refused = command("queue", "set", QUEUE, *options)

    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    assert count(db, "queue") == 0


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://sqs.us-east-1.amazonaws.com/1/q1", "q1"),
        ("http://127.0.0.1:4566/000000000000/q1.fifo/", "q1.fifo"),
        ("arn:aws:sqs:us-east-1:1:q1", "q1"),
        ("amqp://me:secret@127.0.0.1/vhost?queue=q1", "q1"),
        ("kafka://me:secret@127.0.0.1:9092/q1?group=g", "q1"),
    ],
)
def test_the_address_of_a_queue_is_refused_with_the_name_to_use(
    command: Any, db: Db, address: str, name: str
) -> None:
    """What is said of the address would hold for no message, and a binding would be none."""
    (rule, tried) = ("rejection", "rule", "add", "--reason", "not_json", "--queue"), ("queue", "set")

    for refused in (command(*tried, address, "--tenant", "acme"), command(*rule, address)):
        assert refused.exit_code == 2, refused.output
        assert f"expected its name, as in message.queue: '{name}'" in refused.stderr
        assert "secret" not in refused.output
    assert (count(db, "queue"), count(db, "rejection_rule")) == (0, 0)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--tenants", "acme,nosuch"), "note: no tenant 'nosuch'"),
        (("--event-type", "nosuch"), "note: no schema of event type 'nosuch' yet"),
        (("--tenant", "globex", "--register", "tenants"), "note: the tenants that it is bound to are all"),
        (("--tenant", "nosuch", "--register", "tenants", "--event-type", "order.created"), None),
        (("--tenant", "acme"), None),
        (("--unwrap", "sns"), None),
    ],
)
def test_what_holds_for_nothing_yet_is_set_with_a_note(
    command: Any, options: tuple[str, ...], note: str | None
) -> None:
    done = command("queue", "set", QUEUE, *options)

    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(note) if note else done.stderr == "", done.stderr


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO queue (queue) VALUES ('')",
        "INSERT INTO queue (queue, unwrap) VALUES ('q', 'sqs')",
        "INSERT INTO queue (queue, mapping) VALUES ('q', '{}')",
        "INSERT INTO queue (queue, mapping) VALUES ('q', '[\"/x\"]')",
        "INSERT INTO queue (queue, mapping) VALUES ('q', '{\"id\": \"x\"}')",
        "INSERT INTO queue (queue, mapping) VALUES ('q', '{\"id\": 1}')",
        "INSERT INTO queue (queue, mapping) VALUES ('q', '{\"tenant\": \"/x\"}')",
        'INSERT INTO queue (queue, mapping) VALUES (\'q\', \'{"payload": "/x", "payload_json": "/x"}\')',
        "INSERT INTO queue (queue, tenants) VALUES ('q', '{}')",
        "INSERT INTO queue (queue, tenants) VALUES ('q', '{acme, NULL}')",
        "INSERT INTO queue (queue, registers_max) VALUES ('q', 0)",
    ],
)
def test_psql_can_not_say_what_no_processor_could_read(db: Db, change: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(change)


def test_a_change_raises_the_registrys_version_once(command: Any, db: Db) -> None:
    before = version(db)

    for place, change in enumerate(("set --tenant acme", "set --unset tenants", "remove"), start=1):
        name, *options = change.split()
        if name == "remove":
            set_queue(db, QUEUE, {"tenants": ["acme"]})
            before += 1
        command("queue", name, QUEUE, *options)
        assert version(db) == before + place


# ── who may speak for whom ────────────────────────────────────────────────────────────────────────────


def proofs(db: Db) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT reason, tenant_id, bound_tenant_id FROM rejection ORDER BY rejection_id"
    ).fetchall()


def test_the_registry_binds_a_queue_as_the_setting_does(saver: Saver, db: Db) -> None:
    set_queue(db, QUEUE, {"tenants": ["acme"]})

    found = saver.outcomes(
        a_delivery(tenant_id="globex"),
        a_delivery(b"nonsense"),
        a_delivery(tenant_id="globex", queue="other"),
        a_delivery(tenant_id=None),
    )

    assert found == ["envelope_invalid", "not_json", "stored", "stored"]
    assert proofs(db) == [("envelope_invalid", "globex", "acme"), ("not_json", None, "acme")]
    assert db.execute("SELECT tenant_id FROM message WHERE queue = %s", [QUEUE]).fetchall() == [("acme",)]


def test_what_both_bind_both_have_to_allow(database_url: str, db: Db) -> None:
    set_queue(db, QUEUE, {"tenants": ["acme", "globex"]})
    registry.add_tenant(db, "initech")
    bindings = Bindings(QUEUE, frozenset({"globex", "initech"}))

    with closing(a_bound_saver(database_url, bindings)) as saver:
        found = [saver.outcomes(a_delivery(tenant_id=name)) for name in ("acme", "globex", "initech")]

    assert found == [["envelope_invalid"], ["stored"], ["envelope_invalid"]]
    assert {bound for _, _, bound in proofs(db)} == {"globex"}


def test_a_replay_in_a_bare_shell_judges_by_the_registry(saver: Saver, database_url: str, db: Db) -> None:
    set_queue(db, QUEUE, {"tenants": ["acme"], "mapping": APP})
    saver.save(a_delivery(app_body(client_id="globex")), a_delivery(app_body(client_id="acme", message=1)))
    set_queue(db, "other", {"tenants": ["globex"]})
    settings = Settings.load(database_url=database_url)

    outcomes, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)
    assert outcomes == {"envelope_invalid": 1, "schema_violation": 1}
    assert {bound for _, _, bound in proofs(db)} == {"acme"}

    set_queue(db, QUEUE, {"tenants": ["acme", "globex"]})
    outcomes, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)
    assert outcomes == {"stored": 1, "schema_violation": 1}
    assert {bound for _, _, bound in proofs(db)} == {"acme", None}


def test_a_mapping_makes_messages_of_open_rejections_and_a_dry_run_says_so_beforehand(
    saver: Saver, database_url: str, db: Db
) -> None:
    registry.add_tenant(db, "7")
    saver.save(
        a_delivery(app_body()), a_delivery(app_body(message={})), a_delivery(app_body(), queue="other")
    )
    set_queue(db, QUEUE, {"mapping": APP})
    settings = Settings.load(database_url=database_url)

    foretold, _ = replay(settings, RejectionSelection(), dry_run=True, forced=False)
    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 3}
    done, _ = replay(settings, RejectionSelection(), dry_run=False, forced=False)

    assert foretold == done == {"stored": 1, "schema_violation": 1, "envelope_invalid": 1}
    assert db.execute("SELECT tenant_id, payload FROM message").fetchall() == [("7", {"total": 1.5})]


def test_the_registry_goes_before_the_settings(saver: Saver, db: Db, database_url: str) -> None:
    """UNWRAP=sns in the environment, and a queue of which the registry says another thing."""
    settings = Settings.load(
        database_url=database_url, sqs_queue_url=f"http://127.0.0.1:1/000000000000/{QUEUE}", unwrap="sns"
    )
    saver.save(a_delivery(b"nonsense"))
    db.execute("UPDATE rejection SET body = %s", [a_delivery().body])

    assert replay(settings, RejectionSelection(), dry_run=True, forced=False)[0] == {"envelope_invalid": 1}
    set_queue(db, QUEUE, {"unwrap": "none"})
    assert replay(settings, RejectionSelection(), dry_run=True, forced=False)[0] == {"stored": 1}


def test_a_tenants_login_reads_no_queue_whatever_else_it_is_granted(log_in: LogIn, db: Db) -> None:
    set_queue(db, QUEUE, {"tenants": ["acme", "globex"]})
    question = "SELECT queue FROM queue"

    with (
        connect(log_in("processor_tenant_reader")) as one,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        one.execute(question)
    with connect(log_in("processor_tenant_reader", "processor_reader")) as both:
        assert both.execute(question).fetchall() == []
    for role in ("processor_reader", "processor_writer"):
        with connect(log_in(role)) as other:
            assert other.execute(question).fetchall() == [(QUEUE,)]


# ── from a queue of SQS to the rows ───────────────────────────────────────────────────────────────────


def test_what_is_set_of_a_queue_of_sqs_holds_for_its_next_messages(
    command: Any, settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, db: Db
) -> None:
    name = settings.queue_name()
    maps = [f"--map={field}={at}" for field, at in APP.items()]
    command("queue", "set", name, *maps, "--map=id=/id", "--register", "tenants")
    client = sqs_server.client()
    for body in (app_body(id=1), app_body(id=1), app_body(id=2, client_id="x"), app_body(id=3, message=[])):
        client.send_message(
            QueueUrl=queue_url,
            MessageBody=body.decode(),
            MessageAttributes={"origin": {"DataType": "String", "StringValue": "eu"}},
        )

    run(
        with_changes(settings, http_port=0, keep_to_one_core="off"),
        Stops(threading.Event(), threading.Event()),
        until_idle_s=1,
    )

    assert books(db) == {"message": 2, "duplicate": 1, "rejection": 1}
    rows = db.execute("SELECT tenant_id, message_id, payload, context FROM message ORDER BY 1").fetchall()
    assert rows == [
        ("7", "1", {"total": 1.5}, {"host": "a", "origin": "eu"}),
        ("x", "2", {"total": 1.5}, {"host": "a", "origin": "eu"}),
    ]
    assert {row["registered_by"] for row in json.loads(command("tenant", "list", "--json").output)} == {
        None,
        name,
    }


# ── the check ─────────────────────────────────────────────────────────────────────────────────────────


def finding(settings: Settings) -> Any:
    return {found.what: found for found in run_check(settings)}.get("queue rules")


def test_a_check_says_what_is_said_of_its_queue(settings: Settings, db: Db) -> None:
    assert finding(settings) is None
    set_queue(db, settings.queue_name(), {"mapping": APP, "tenants": ["acme"], "registers_tenants": True})

    found = finding(settings)

    assert (found.fine, found.advice) == (True, None)
    assert found.found == (
        f"{settings.queue_name()}: mapped: event_type, payload, tenant_id; tenants: acme; "
        "new tenants per hour: 1000"
    )


def test_a_check_warns_where_settings_say_another_thing_than_the_registry(settings: Settings, db: Db) -> None:
    set_queue(db, settings.queue_name(), {"unwrap": "none", "tenants": ["acme", "newcomer"]})

    found = finding(with_changes(settings, unwrap="sns", queue_tenants=frozenset({"acme", "globex"})))

    assert found.fine
    assert "UNWRAP is sns, but the registry's none applies" in found.advice
    assert "QUEUE_TENANTS names other tenants; allowed by both: acme;" in found.advice
    assert "events of unregistered tenants are rejected: newcomer" in found.advice
