"""A schema tried before it is published: on what is stored, and on what was rejected."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.database.connection import connect
from processor.database.queries import queries
from processor.errors import StoreUnavailable
from processor.model import EventSchema
from processor.operations import registry, schema_trial
from processor.operations.queue_rules import set_queue
from processor.operations.schema_trial import SchemaTrialReport
from processor.settings import Settings
from processor.wiring.trial import try_schema
from tests.builders import ORDER_SCHEMA, a_delivery
from tests.cli.test_cli import FAILED, FINE, PROBLEM_FOUND, USAGE, Answer, Command
from tests.cli.test_cli import run as run  # noqa: PLC0414 - a fixture
from tests.fixtures.database import LogIn, MakeSaver, Saver, books
from tests.fixtures.meters import a_pulse, a_void, add_meter

Db = psycopg.Connection[Any]
Try = Callable[..., Answer]

SMALL = {"properties": {"total": {"maximum": 5}}}


@pytest.fixture
def trial(run: Command, tmp_path: Path) -> Try:
    """Tries a schema, of order.created if nothing else is said."""
    file = tmp_path / "schema.json"

    def try_it(schema: Any, *options: object, event_type: str = "order.created", **more: str) -> Answer:
        file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
        return run("schema", "test", event_type, file, *options, **more)

    return try_it


def totals(*values: Any, **changes: Any) -> list[Any]:
    return [a_delivery(payload={"total": value}, **changes) for value in values]


def look(url: str, definition: Any, **changes: Any) -> SchemaTrialReport:
    """Try a schema of order.created without the command."""
    arguments: dict[str, Any] = {
        "compat": None,
        "against": ("stored", "rejected"),
        "since": None,
        "limit": schema_trial.LIMIT,
        "on_batch": lambda _what, _count: None,
    }
    tenant_id = changes.pop("tenant_id", None)
    schema = EventSchema(0, "order.created", tenant_id, 0, json.dumps(definition))
    settings = Settings(_env_file=None, database_url=url)
    return try_schema(settings, schema, (), **arguments | changes)


def insert(db: Db, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Put messages in by psql: tenant, id, when it was stored, payload."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, stored_at, payload,"
            " queue, delivery_id, receive_count)"
            " VALUES (%s, %s, 'order.created', 1, now(), %s, %s::jsonb, 'q', %s, 1)",
            [(tenant, name, moment, payload, name) for tenant, name, moment, payload in rows],
        )


# ── stored messages ───────────────────────────────────────────────────────────────────────────────────


def test_stored_messages_that_it_would_reject_are_counted_and_the_newest_five_are_shown(
    trial: Try, saver: Saver, db: Db
) -> None:
    for number in range(10):
        saver.save(a_delivery(id=f"o-{number}", producer="shop", payload={"total": number + 0.5}))
    before = books(db)

    told = trial({"required": ["note"]}, "--against", "stored")

    assert (told.code, told.error) == (PROBLEM_FOUND, "")
    first, blank, head, *lines = told.out.splitlines()
    assert (first, blank) == ("order.created, version 2 to be (shared); nothing is published", "")
    assert head == "stored messages: 10 of 10 would be rejected"
    assert [line.split("  stored")[0] for line in lines[0::2]] == [
        *(f"  acme  o-{number}  (producer shop)" for number in (9, 8, 7, 6, 5)),
        "  ... and 5 more",
    ]
    assert lines[1] == '    the payload: "note" is a required property'
    assert books(db) == before
    assert db.execute("SELECT max(version) FROM event_schema").fetchall() == [(1,)]


def test_json_has_all_that_was_found(trial: Try, saver: Saver) -> None:
    saver.save(*totals(1, 9), *totals(9, 1, tenant_id="globex"), a_delivery(payload={}))

    told = trial(SMALL, "--json").json

    [newest, _] = told["stored"].pop("examples")
    assert newest["pointer"] == "/total"
    assert newest["rule"] == "/properties/total/maximum"
    assert newest["reason"] == "schema_violation"
    assert newest["message"] == "/total: 9 is greater than the maximum of 5"
    assert newest.keys() == {
        *("tenant_id", "message_id", "producer", "stored_at", "pointer", "rule", "reason", "message")
    }
    assert told["stored"].pop("seconds") > 0
    assert told["rejected"].pop("seconds") > 0
    assert told == {
        "event_type": "order.created",
        "tenant_id": None,
        "version": 2,
        "tenants_with_their_own": [],
        "finished": True,
        "stored": {
            "judged": 4,
            "would_be_rejected": 2,
            "rejected_already": 0,
            "unreadable": 0,
            "is_all": True,
            "back_to": None,
            "estimated_count": 4,
        },
        "rejected": {
            "judged": 1,
            "would_pass": 1,
            "pass_already": 0,
            "would_be_rejected": {},
            "cut": 0,
            "is_all": True,
        },
        "tenants": [
            {"tenant_id": "acme", "stored": 2, "would_be_rejected": 1, "open_rejections": 1, "would_pass": 1},
            {
                "tenant_id": "globex",
                "stored": 2,
                "would_be_rejected": 1,
                "open_rejections": 0,
                "would_pass": 0,
            },
        ],
    }


def test_what_today_s_schema_would_reject_as_well_is_said(trial: Try, saver: Saver, db: Db) -> None:
    saver.save(*totals(1, 7, 9))
    registry.publish_schema(db, "order.created", {"properties": {"total": {"maximum": 8}}})

    told = trial(SMALL, "--against", "stored")

    assert told.code == PROBLEM_FOUND
    assert "stored messages: 2 of 3 would be rejected\n" in told.out
    assert "  1 of these would be rejected by what is published now, too\n" in told.out


def test_numbers_are_judged_by_every_digit_and_in_whatever_spelling_they_are_kept(
    trial: Try, saver: Saver
) -> None:
    bound = "0.10000000000000000000000000000000000001"
    for number in (bound, bound + "0", bound + "1", "0.1", "1E+2", "-0.0"):
        payload = b'{"b": "\\u00e9", "total": ' + number.encode() + b', "a": 1}'
        event = b'{"tenant_id": "acme", "event_type": "order.created", "payload": ' + payload + b"}"
        assert saver.outcomes(a_delivery(event)) == ["stored"]

    schema = '{"properties": {"total": {"maximum": ' + bound + "}}}"
    told = trial(schema, "--json").json["stored"]
    assert [row["message"] for row in told["examples"]] == [
        f"/total: {number} is greater than the maximum of {bound}" for number in ("100", bound + "1")
    ]
    assert trial('{"properties": {"b": {"const": "\u00e9"}, "total": {"maximum": 1e2}}}').code == FINE


def test_only_tenants_to_which_it_would_apply_are_judged(trial: Try, saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "order.created", ORDER_SCHEMA, "globex")
    saver.save(*totals(9), *totals(9, 9, tenant_id="globex"), a_delivery(payload={}, tenant_id="globex"))

    shared = trial(SMALL)
    assert "it would not apply to globex: there are schemas of their own\n" in shared.out
    assert "stored messages: 1 of 1 would be rejected\n" in shared.out
    assert "open rejections: none of this type\n" in shared.out

    own = trial(SMALL, "--tenant", "globex")
    assert own.out.startswith("order.created, version 2 to be (tenant globex)")
    assert "stored messages: 2 of 2 would be rejected\n" in own.out
    assert "open rejections: 1 of 1 would pass\n" in own.out
    # Its first own one takes a tenant away from the shared ones.
    first = trial(SMALL, "--tenant", "acme")
    assert first.out.startswith("order.created, version 1 to be (tenant acme)")
    assert "stored messages: 1 of 1 would be rejected\n" in first.out


def test_messages_of_a_suspended_tenant_are_judged_and_its_rejections_stay(
    trial: Try, saver: Saver, db: Db
) -> None:
    saver.save(*totals(1, 9))
    registry.set_tenant_status(db, "acme", "suspended")
    saver.save(*totals(1))

    told = trial(SMALL)

    assert told.code == PROBLEM_FOUND
    assert "stored messages: 1 of 2 would be rejected\n" in told.out
    assert "open rejections: 0 of 1 would pass\n  still rejected: 1 tenant_suspended\n" in told.out


def test_meters_have_a_say_and_voided_messages_and_voids_are_judged(trial: Try, saver: Saver, db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    saver.save(a_pulse(1, id="p-1"), a_pulse(-1, id="p-2"))
    add_meter(db)
    saver.save(a_void("p-1"))

    pulses = trial({"properties": {"used_amount": {"maximum": 0}}}, "--json", event_type="pulse").json[
        "stored"
    ]

    assert [(row["message_id"], row["rule"]) for row in pulses["examples"]] == [
        ("p-2", "meter pulse"),
        ("p-1", "/properties/used_amount/maximum"),
    ]
    assert pulses["rejected_already"] == 1
    assert trial({"required": ["message_id"]}, event_type="void").code == FINE
    assert trial({"required": ["reason"]}, event_type="void").code == PROBLEM_FOUND


def test_large_payloads_are_read_a_few_at_a_time(
    trial: Try, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_trial, "_PAYLOADS_BYTES_MAX", 1_000_000)
    sizes: list[int] = []
    rows = schema_trial._rows

    def counted(connection: Db, name: str, parameters: Any) -> list[dict[str, Any]]:
        found = rows(connection, name, parameters)
        if name == "stored_payloads":
            sizes.append(len(found))
        return found

    monkeypatch.setattr(schema_trial, "_rows", counted)
    for number in range(5):
        noise = "".join(f"{(number + 7) ** (7 + place):x}" for place in range(1700))[:900_000]
        saver.save(a_delivery(payload={"total": number, "note": noise}))
    saver.save(*totals(6, 7))

    told = trial({"properties": {"note": {"maxLength": 10}}}, "--json").json["stored"]

    assert (told["judged"], told["would_be_rejected"]) == (7, 5)
    assert len(sizes) >= 3
    assert max(sizes) <= 4


def test_what_psql_put_in_is_judged_or_counted_apart(trial: Try, db: Db) -> None:
    deep = "[" * 5000 + "]" * 5000
    insert(
        db,
        [
            ("acme", "a", "2026-11-01", "null"),
            ("acme", "b", "2026-11-02", '{"total": 1e400}'),
            ("acme", "c", "2026-11-03", f'{{"total": {deep}}}'),
            ("acme", "d", "2026-11-04", "[1]"),
        ],
    )

    told = trial({"type": "object"}, "--json").json["stored"]

    assert told["judged"] == 4
    assert told["unreadable"] == 2
    assert [row["message_id"] for row in told["examples"]] == ["d", "a"]
    assert "\n  2 can't be read: no processor stored them so\n" in trial({"type": "object"}).out


# ── what part of the table ────────────────────────────────────────────────────────────────────────────


def test_every_message_is_judged_once_newest_first_however_they_are_spread(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties longer than a page, gaps of years, and a clock that went wrong."""
    monkeypatch.setattr(schema_trial, "_KEYS_PAGE", 7)
    monkeypatch.setattr(schema_trial, "_PAYLOADS_PAGE", 3)
    monkeypatch.setattr(schema_trial, "EXAMPLES_MAX", 1000)
    now = datetime.now(UTC)
    ages = [
        *(timedelta(microseconds=number // 20) for number in range(60)),
        *(timedelta(days=3, seconds=number) for number in range(20)),
        *(timedelta(days=900) for _ in range(20)),
        *(timedelta(days=-2), timedelta(days=365 * 60)),
    ]
    rows = [
        (("acme", "globex")[number % 2], f"m{number:03}", str(now - age), '{"total": 9}')
        for number, age in enumerate(ages)
    ]
    insert(db, rows)
    order = [
        name
        for _, _, name in sorted(
            ((datetime.fromisoformat(moment), tenant, name) for tenant, name, moment, _ in rows),
            reverse=True,
        )
    ]

    def judged(**changes: Any) -> list[str]:
        found = look(database_url, SMALL, **changes).stored
        assert found is not None
        assert found.is_all == (changes.get("limit", 1000) >= len(order))
        return [row["message_id"] for row in found.examples]

    assert judged() == order
    for limit in (1, 6, 7, 8, 61, len(order) - 1, len(order)):
        assert judged(limit=limit) == order[:limit]
    since = sorted(now - age for age in ages)[-80]
    assert judged(since=since) == order[:80]


def test_the_part_that_was_looked_at_is_said(trial: Try, saver: Saver, db: Db) -> None:
    for number in range(20):
        saver.save(*totals(number))
    saver.save(a_delivery(payload={}), a_delivery(payload={}))
    db.execute("ANALYZE message")

    told = trial(SMALL, "--limit", 15)

    assert "stored messages: 14 of the newest 15 (of some 20, by estimate) would be rejected\n" in told.out
    assert "open rejections: 2 of 2 would pass\n" in told.out
    assert trial(SMALL, "--limit", 15, "--json").json["stored"]["estimated_count"] == 20
    assert "open rejections: 1 of the newest 1 would pass\n" in trial(SMALL, "--limit", 1).out
    assert "stored messages: none of this type\n" in trial(SMALL, "--since", "0s").out
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "open rejections: none of this type\n" in trial(SMALL, "--since", later).out
    assert "stored messages: 14 of 20 would be rejected\n" in trial(SMALL, "--since", "1h").out
    assert trial(SMALL, "--since", "yesterday").code == USAGE
    assert trial(SMALL, "--limit", 0).code == USAGE


def test_a_page_of_keys_is_found_by_the_index_and_a_payload_by_its_key(db: Db) -> None:
    db.execute(
        "INSERT INTO message (tenant_id, message_id, event_type, schema_id, sent_at, stored_at, payload,"
        " queue, delivery_id, receive_count) SELECT 'acme', 'm' || i, 'order.created', 1, now(),"
        " now() - i * interval '1 minute', '{}', 'q', 'd' || i, 1 FROM generate_series(200, 1, -1) AS i"
    )

    def plan(name: str, **parameters: Any) -> str:
        with schema_trial._brief(db):
            rows = db.execute(f"EXPLAIN {queries('schema_trial')[name]}", parameters).fetchall()
        return "\n".join(line for (line,) in rows)

    asked = schema_trial.TrialScope(EventSchema(0, "order.created", None, 1, "{}")).parameters()
    span = {"low": datetime.now(UTC) - timedelta(hours=1), "high": schema_trial._EVER[1], "limit": 100}
    high = {"high_tenant_id": "", "high_message_id": "", "high_producer": ""}
    key: dict[str, Any] = {"tenant_ids": ["acme"], "message_ids": ["m1"], "producers": [""]}

    assert "message_stored_at_brin" in plan("stored_keys", **asked, **span, **high)
    assert "message_pkey" in plan("stored_payloads", **key)
    assert "rejection_open_idx" in plan("open_rejections", **asked, below=100, limit=100)


# ── open rejections ───────────────────────────────────────────────────────────────────────────────────


def test_open_rejections_go_through_the_whole_reading_and_are_counted_by_what_becomes_of_them(
    trial: Try, saver: Saver, db: Db
) -> None:
    set_queue(db, "app", {"mapping": {"tenant_id": "/t", "event_type": "/e", "payload": "/p"}})
    mapped = b'{"t": "acme", "e": "order.created", "p": {"total": "7"}}'
    saver.save(
        a_delivery(mapped, queue="app"),
        a_delivery(payload={"total": "8"}),
        a_delivery(payload={"total": []}),
        a_delivery(payload={"total": 1}, schema_version=2),
        a_delivery(payload={"total": 1}, schema_version=3),
        a_delivery(payload={"total": 1}, tenant_id="newcomer"),
        a_delivery(payload={"total": 1}, tenant_id="late"),
        a_delivery(payload={"total": 1}, event_type="order.unknown"),
        a_delivery(b'{"tenant_id": "acme"'),
    )
    registry.add_tenant(db, "late")
    saver.save(*totals(3, id="same"))
    saver.save(*totals(4, id="same"))

    told = trial({"properties": {"total": {"type": ["number", "string"]}}}, "--against", "rejected")

    assert told.code == FINE
    assert [line.rstrip() for line in told.out.splitlines()[2:]] == [
        "open rejections: 4 of 7 would pass",
        "  once it is published: processor rejection replay --event-type order.created",
        "  1 of these pass without it, too",
        "  still rejected: 1 schema_violation, 1 unknown_schema_version, 1 unknown_tenant",
        "",
        "tenant id       open rejections  would pass",
        "acme            5                3",
        "late            1                1",
        "not registered  1                0",
    ]
    assert saver.outcomes(*totals(1)) == ["stored"]


def test_a_rejection_whose_body_was_cut_can_not_be_told(trial: Try, make_saver: MakeSaver) -> None:
    saver = make_saver()
    saver.store.rejected_bytes_max = 50_000
    saver.save(*(a_delivery(payload={"note": "x" * 20_000}) for _ in range(8)))

    told = trial({}, "--json").json["rejected"]

    assert told["cut"] > 0
    assert told["judged"] == told["would_pass"] == 8 - told["cut"] > 0
    words = f"\n  {told['cut']} more can't be told: only the head of their body is kept\n"
    assert words in trial({}).out


def test_of_a_new_event_type_the_rejections_are_judged_by_the_scope_of_ids_that_is_to_be(
    run: Command, saver: Saver, tmp_path: Path
) -> None:
    saver.save(
        a_delivery(event_type="created", payload={"user_id": "u"}),
        a_delivery(event_type="created", payload={}),
    )
    file = tmp_path / "schema.json"
    file.write_text("{}")

    told = run("schema", "publish", "created", file, "--dry-run", "--id-scope", "/user_id")

    assert told.code == FINE
    assert "stored messages: none of this type\n" in told.out
    assert "open rejections: 1 of 2 would pass\n" in told.out
    assert "\n  still rejected: 1 schema_violation\n" in told.out
    assert (
        "open rejections: 2 of 2 would pass\n" in run("schema", "publish", "created", file, "--dry-run").out
    )
    assert run("schema", "publish", "created", file, "--id-scope", "/user_id").code == FINE
    assert "open rejections: 1 of 2 would pass\n" in run("schema", "test", "created", file).out


# ── beside others ─────────────────────────────────────────────────────────────────────────────────────


def test_saves_and_a_published_schema_don_t_wait_for_it_nor_it_for_them(
    database_url: str, saver: Saver, make_saver: MakeSaver, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_trial, "_KEYS_PAGE", 5)
    monkeypatch.setattr(schema_trial, "_PAYLOADS_PAGE", 2)
    saver.save(*totals(*range(20)), a_delivery(payload={}))
    other = make_saver()
    db.execute("SET lock_timeout = '5s'")
    batches: list[str] = []

    def meanwhile(what: str, _count: int) -> None:
        batches.append(what)
        assert other.outcomes(*totals(9)) == ["stored"]
        registry.publish_schema(db, "order.created", ORDER_SCHEMA)
        db.execute("DELETE FROM message WHERE message_id = (SELECT min(message_id) FROM message)")

    with connect(database_url) as uncommitted, uncommitted.transaction(force_rollback=True):
        # As a save does, and a migration that only adds.
        uncommitted.execute("SELECT registry_version_held(true, true, true)")
        uncommitted.execute("LOCK TABLE message, rejection IN SHARE UPDATE EXCLUSIVE MODE")
        schema_trial_only = look(database_url, SMALL, limit=3)
    report = look(database_url, SMALL, on_batch=meanwhile)

    assert schema_trial_only.stored is not None
    assert schema_trial_only.stored.judged == 3
    assert report.stored is not None
    assert report.rejected is not None
    assert len(batches) > 4
    # Removed ones are missed, and what was stored since is not looked at.
    assert 10 <= report.stored.judged <= 20
    assert report.rejected.passing == 1


def test_a_role_that_may_read_is_enough_and_nothing_is_written(
    trial: Try, saver: Saver, db: Db, log_in: LogIn
) -> None:
    saver.save(*totals(1, 9), a_delivery(payload={}))
    before = db.execute("SELECT version FROM registry").fetchall(), books(db)

    told = trial(SMALL, url=log_in("processor_reader"))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), schema_trial._brief(db):
        db.execute("DELETE FROM message")

    assert told.code == PROBLEM_FOUND
    assert "stored messages: 1 of 2 would be rejected\n" in told.out
    assert (db.execute("SELECT version FROM registry").fetchall(), books(db)) == before


def test_a_role_that_sees_a_part_of_the_rows_is_told_so(trial: Try, db: Db, log_in: LogIn) -> None:
    url = log_in("processor_reader", "processor_tenant_reader")

    told = trial(SMALL, url=url)

    assert told.code == FAILED
    assert "row-level security hides rows of" in told.error


def test_a_table_that_is_locked_is_not_waited_for_without_end(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_trial, "_STATEMENT_S", 0.1)

    with db.transaction():
        db.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="to look through a part of its tables"):
            look(database_url, SMALL)


def test_what_takes_too_long_is_asked_of_a_shorter_span(
    database_url: str, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(*totals(1, 9))
    page, spans = schema_trial._page_of_keys, []

    def slow(connection: Db, asked: Any, low: datetime, high: Any, size: int) -> list[dict[str, Any]]:
        spans.append(low)
        if len(spans) in (1, 4):
            raise psycopg.errors.QueryCanceled
        return page(connection, asked, low, high, size)

    monkeypatch.setattr(schema_trial, "_page_of_keys", slow)

    report = look(database_url, SMALL)

    assert report.stored is not None
    assert (report.stored.judged, report.stored.rejected, report.stored.is_all) == (2, 1, True)
    assert spans[0] < spans[1]
    assert spans[3] < spans[4]


def test_where_it_takes_too_long_to_look_further_back_is_said(
    trial: Try, saver: Saver, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(db, [("acme", "old", "2020-01-01", '{"total": 9}')])
    saver.save(*totals(1, 9))
    page, edge = schema_trial._page_of_keys, datetime(2026, 1, 1, tzinfo=UTC)

    def slow(connection: Db, asked: Any, low: datetime, high: Any, size: int) -> list[dict[str, Any]]:
        if low < edge:
            raise psycopg.errors.QueryCanceled
        return page(connection, asked, low, high, size)

    monkeypatch.setattr(schema_trial, "_page_of_keys", slow)

    told = trial(SMALL)

    assert told.code == PROBLEM_FOUND
    assert "stored messages: 1 of the newest 2 (back to 2026-" in told.out
    assert "Z; to look further back took too long) would be rejected\n" in told.out


def test_ctrl_c_ends_it_with_what_was_found_until_then(
    saver: Saver, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(*totals(*range(9)))
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SMALL))

    def stop(_what: str, _count: int) -> None:
        # What Python makes of the signal, which test workers ignore.
        raise KeyboardInterrupt

    report = look(database_url, SMALL, on_batch=stop)

    assert report.stopped
    assert report.stored is not None
    assert report.stored.rejected == 3
    assert report.rejected is None


# ── publish --dry-run ─────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_says_the_same_and_publishes_nothing(
    run: Command, trial: Try, saver: Saver, db: Db
) -> None:
    saver.save(*totals(1, 9), a_delivery(payload={}))
    tried = trial(SMALL)
    file = next(Path.cwd().glob("schema.json"))

    dry = run("schema", "publish", "order.created", file, "--dry-run")

    assert (dry.code, dry.out) == (PROBLEM_FOUND, tried.out)
    assert run("schema", "publish", "order.created", file, "--dry-run", "--json").json["version"] == 2
    assert db.execute("SELECT count(*) FROM event_schema").fetchall() == [(1,)]
    assert run("schema", "publish", "order.created", file, "--json").json == {
        "event_type": "order.created",
        "tenant_id": None,
        "version": 2,
    }


def test_a_dry_run_says_beside_the_trial_what_the_event_type_promises(
    run: Command, trial: Try, saver: Saver, db: Db
) -> None:
    saver.save(*totals(1, 9), a_delivery(payload={}))
    tried = trial(SMALL)
    file = next(Path.cwd().glob("schema.json"))
    command = ["schema", "publish", "order.created", file, "--compat", "full"]

    dry, real = run(*command, "--dry-run"), run(*command)

    assert (dry.code, dry.out) == (PROBLEM_FOUND, tried.out)
    assert "asks for --compat full" in dry.error
    assert (real.code, real.error) == (PROBLEM_FOUND, dry.error)
    assert run(*command, "--dry-run", "--breaking") == tried
    assert run(*command, "--dry-run", "--json").json["version"] == 2


REFUSED: dict[str, tuple[str, str, list[str]]] = {
    "unusable": ("order.created", '{"type": "nonsense"}', []),
    "no schema": ("order.created", "[1]", []),
    "no JSON": ("order.created", '{"type"', []),
    "unknown tenant": ("order.created", "{}", ["--tenant", "nobody"]),
    "a NUL": ("order.created", '{"title": "\\u0000"}', []),
    "no name": ("", "{}", []),
    "a long name": ("x" * 257, "{}", []),
    "a bad name": ("a\tb", "{}", []),
    "another scope": ("order.created", "{}", ["--id-scope", "/user_id"]),
    "no pointer": ("new", "{}", ["--id-scope", "user_id"]),
    "no place": ("new", "{}", ["--id-scope", "/01"]),
    "five pointers": ("new", "{}", [f"--id-scope=/{number}" for number in range(5)]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_publish_refuses_is_refused_in_the_same_words(
    what: str, run: Command, tmp_path: Path, db: Db
) -> None:
    event_type, text, options = REFUSED[what]
    file = tmp_path / "schema.json"
    file.write_text(text)
    command = ["schema", "publish", event_type, file, *options]

    dry, real = run(*command, "--dry-run"), run(*command)

    assert dry == real
    assert dry.code in (USAGE, FAILED)
    assert db.execute("SELECT count(*) FROM event_type").fetchall() == [(1,)]


def test_the_scope_that_an_event_type_has_may_be_said_again(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text("{}")
    command = ["schema", "publish", "created", file, "--id-scope", "/user_id"]
    assert run(*command).code == FINE

    assert run(*command, "--dry-run").code == FINE
    assert run(*command).code == FINE
