"""Tests tenant bindings end to end: from settings and queue to the row, in a replay and in a check."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.errors import SettingsError
from processor.operations import registry
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.sources.sqs.source import SqsSource
from processor.validation.tenant_bindings import Bindings
from processor.wiring import make_schemas
from processor.wiring.commands import replay, run_check
from tests.builders import QUEUE, a_delivery, an_event
from tests.fixtures.check import with_changes
from tests.fixtures.database import Saver, a_bound_saver, books

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

EVENTS_URL = "http://127.0.0.1:1/000000000000/events"


@pytest.fixture
def bound(database_url: str) -> Iterator[Saver]:
    """A saver whose queue is bound to acme."""
    with closing(a_bound_saver(database_url, Bindings(QUEUE, frozenset({"acme"})))) as saver:
        yield saver


def _settings(database_url: str, **more: Any) -> Settings:
    return Settings.load(database_url=database_url, **more)


def _proofs(db: Db) -> list[tuple[Any, ...]]:
    query = (
        "SELECT reason, tenant_id, bound_tenant_id, sender_id, status FROM rejection ORDER BY rejection_id"
    )
    return db.execute(query).fetchall()


def test_a_rejection_keeps_its_sender_and_its_proven_tenant(bound: Saver, db: Db) -> None:
    event = an_event(id="o-1")
    deliveries = [
        a_delivery(tenant_id="globex", sender_id="AROA1:i-1"),
        a_delivery(b"nonsense", sender_id="AIDA1"),
        a_delivery(b"nonsense", queue="other"),
        # Rejections with a cause from the database.
        a_delivery(payload={"total": 1, "note": "\0"}),
        a_delivery(**event),
        a_delivery(**event | {"payload": {"total": 0}}),
    ]

    bound.save(*deliveries)

    assert set(_proofs(db)) == {
        ("envelope_invalid", "globex", "acme", "AROA1:i-1", "open"),
        ("not_json", None, "acme", "AIDA1", "open"),
        ("not_json", None, None, None, "open"),
        ("unstorable", "acme", "acme", None, "open"),
        ("id_conflict", "acme", "acme", None, "open"),
    }


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sqs_queue_url": EVENTS_URL},
        {"sqs_queue_url": EVENTS_URL, "queue_tenants": "acme"},
        {"sqs_queue_url": EVENTS_URL + "-of-globex", "queue_tenants": "globex"},
        {"sender_tenants": '{"AIDA1": ["acme"]}'},
    ],
)
def test_a_replay_opens_no_door_whatever_queue_its_settings_name(
    bound: Saver, database_url: str, db: Db, more: dict[str, str]
) -> None:
    bound.save(a_delivery(tenant_id="globex", sender_id="AIDA1"))

    outcomes, _ = replay(_settings(database_url, **more), RejectionSelection(), dry_run=False, forced=False)

    assert outcomes == {"envelope_invalid": 1}
    assert _proofs(db) == [("envelope_invalid", "globex", "acme", "AIDA1", "open")]
    assert books(db)["message"] == 0


def test_a_binding_does_not_apply_to_rejections_of_another_queue(
    saver: Saver, database_url: str, db: Db
) -> None:
    saver.save(a_delivery(tenant_id="newcomer", queue="other"))
    registry.add_tenant(db, "newcomer")

    outcomes, _ = replay(
        _settings(database_url, sqs_queue_url=EVENTS_URL, queue_tenants="acme"),
        RejectionSelection(),
        dry_run=False,
        forced=False,
    )

    assert outcomes == {"stored": 1}


def test_a_wrong_binding_is_corrected_and_its_rejections_replayed(
    bound: Saver, database_url: str, db: Db
) -> None:
    bound.save(a_delivery(tenant_id="globex"), a_delivery(b"nonsense"))
    mended = _settings(database_url, sqs_queue_url=EVENTS_URL, queue_tenants="globex")

    outcomes, _ = replay(mended, RejectionSelection(), dry_run=False, forced=False)

    assert outcomes == {"stored": 1, "not_json": 1}
    assert [(row[2], row[4]) for row in _proofs(db)] == [("acme", "replayed"), (None, "open")]


@pytest.mark.parametrize("calls_by", ["lean", "boto3"])
def test_the_queue_reports_the_sender_of_a_message(
    sqs_server: EmbeddedSqs, settings: Settings, calls_by: Literal["lean", "boto3"]
) -> None:
    sqs_server.client().send_message(QueueUrl=settings.need_queue_url(), MessageBody="{}")

    (delivery,) = SqsSource.open(with_changes(settings, sqs_client=calls_by)).receive(1, 5)

    assert delivery.sender_id == "000000000000"


# ── the settings ──────────────────────────────────────────────────────────────────────────────────────


def test_tenants_are_read_as_a_list_with_commas_or_in_json() -> None:
    commas = Settings.load(queue_tenants=" acme, globex ")
    json_list = Settings.load(queue_tenants='["acme", "a,b"]')

    assert commas.queue_tenants == frozenset({"acme", "globex"})
    assert json_list.queue_tenants == frozenset({"acme", "a,b"})


def test_senders_are_read_with_their_tenants() -> None:
    found = Settings.load(sender_tenants='{"AIDA1": ["acme", "globex"], "*": "*"}').sender_tenants

    assert found == {"AIDA1": {"acme", "globex"}, "*": None}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("QUEUE_TENANTS", ",", "'' is no tenant id"),
        ("QUEUE_TENANTS", "acme,", "'' is no tenant id"),
        ("QUEUE_TENANTS", "[]", "a list of tenants that is not empty"),
        ("QUEUE_TENANTS", '["acme"', "not JSON"),
        ("QUEUE_TENANTS", "[1]", "'1' is no tenant id"),
        ("QUEUE_TENANTS", "*", "a tenant of that name"),
        ("QUEUE_TENANTS", "a" * 257, "is no tenant id; expected 1 to 256 characters"),
        ("QUEUE_TENANTS", "ac\tme", "is no tenant id"),
        ("SENDER_TENANTS", "AIDA1=acme", "not JSON"),
        ("SENDER_TENANTS", "[" * 100_000, "not JSON"),
        ("SENDER_TENANTS", "{}", "an entry at least"),
        ("SENDER_TENANTS", '["AIDA1"]', "a JSON object"),
        ("SENDER_TENANTS", '{"AIDA1": []}', "the entry 'AIDA1': expected a list of tenants"),
        ("SENDER_TENANTS", '{"AIDA1": "acme"}', "the entry 'AIDA1': expected a list of tenants"),
        ("SENDER_TENANTS", '{"AIDA1": ["*"]}', 'expected "*" without the list'),
        ("SENDER_TENANTS", '{"AIDA1": ["acme"], "AIDA1": ["globex"]}', "stands in it twice"),
    ],
)
def test_an_invalid_binding_is_rejected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        Settings.load()

    assert f"bad settings: {name}: " in str(caught.value)
    assert words in str(caught.value)


def test_tenants_without_a_queue_are_rejected() -> None:
    with pytest.raises(SettingsError, match=r"set SQS_QUEUE_URL \(or SOURCE_URL\) too"):
        make_schemas(Settings.load(queue_tenants="acme"))


# ── the check ─────────────────────────────────────────────────────────────────────────────────────────


def _finding(settings: Settings, **changes: Any) -> Any:
    found = Settings.load(**changes)
    bound = with_changes(settings, queue_tenants=found.queue_tenants, sender_tenants=found.sender_tenants)
    return {finding.what: finding for finding in run_check(bound)}["queue binding"]


def test_a_check_lists_the_bindings(settings: Settings) -> None:
    bound = _finding(settings, queue_tenants="acme,globex", sender_tenants='{"AIDA1": ["acme"]}')

    assert bound.fine
    assert bound.advice is None
    assert bound.found == (
        f"queue {settings.queue_name()}: acme, globex; bound senders: 1, other senders are refused"
    )
    assert _finding(settings).found == "none: an event may name any tenant"
    assert "other senders: any tenant" in _finding(settings, sender_tenants='{"A": ["acme"], "*": "*"}').found


def test_a_check_warns_of_a_bound_tenant_that_is_not_registered(settings: Settings) -> None:
    bound = _finding(settings, queue_tenants="acme,newcomer", sender_tenants='{"AIDA1": ["hooli"]}')

    assert bound.fine
    assert "hooli, newcomer" in bound.advice
    assert "processor tenant add" in bound.advice


def test_a_check_rejects_tenants_without_a_queue(settings: Settings) -> None:
    unnamed = with_changes(settings, sqs_queue_url=None, queue_tenants=frozenset({"acme"}))

    findings = {finding.what: finding for finding in run_check(unnamed)}

    assert not findings["queue binding"].fine
    assert "SQS_QUEUE_URL" in findings["queue binding"].found
