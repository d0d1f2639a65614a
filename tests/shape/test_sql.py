"""The SQL says what it is: every table explained, every law named, every query used, the contract kept."""

import ast
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.cli.usage import meters as meters_cli
from processor.database.queries import queries, sql_folder
from processor.errors import Reason
from processor.usage.meters import NAMES_TAKEN

Db = psycopg.Connection[Any]

PROCESSOR = Path(__file__).resolve().parents[2] / "processor"
TABLES = (
    "tenant",
    "event_type",
    "event_schema",
    "queue",
    "registry",
    "message",
    "duplicate",
    "rejection",
    "removal",
    "tenant_reader",
    "migration",
    "meter",
    "total",
    "meter_miss",
    "voided",
    "usage_rebuild",
    "usage_removal",
    "reopened_window",
    "usage_batch",
    "usage_line",
    "usage_place",
    "api_key",
    "attempt",
    "unsettled",
    "run_message",
    "rejection_rule",
    "rejection_room",
    "registry_lock",
    "books_lock",
    "window_lock",
    "batch_lock",
    "newcomer_lock",
    "migrate_lock",
    "retention_floor",
)
VIEWS = ("usage",)
TOPICS = sorted(path.stem for path in (sql_folder() / "queries").glob("*.sql"))

MOMENT_ENDINGS = ("_at", "_from", "_until", "_start", "_end")

# As the design has them: a column ending in ? may be NULL.
COLUMNS = {
    "tenant": "tenant_id name status created_at registered_by?",
    "queue": """
        queue unwrap? mapping? tenants? event_type? registers_tenants registers_max registered_at
        event_types? producers? may_void may_correct
    """,
    "event_type": "event_type description created_at id_scope compat",
    "event_schema": "schema_id event_type tenant_id? version definition published_at formats",
    "message": """
        tenant_id message_id producer event_type schema_id occurred_at? sent_at stored_at payload context?
        queue delivery_id receive_count occurred_at_rest?
    """,
    "duplicate": "queue delivery_id tenant_id message_id producer sent_at receive_count received_at",
    "rejection": """
        rejection_id queue delivery_id reason detail body attributes tenant_id? event_type? message_id?
        producer? sent_at receive_count rejected_at status replay_count closed_at? sender_id? bound_tenant_id?
        first_rejected_at? rule_id? holder? kept_bytes? body_bytes? body_sha256?
    """,
    "rejection_room": "holder slot bytes row_count",
    "rejection_rule": """
        rule_id reason queue? tenant_id? event_type? conditions added_at retired_at? removed_count
        removed_last_at?
    """,
    "removal": "tenant_id outcome day row_count removed_at",
    "tenant_reader": "role_name tenant_id",
    "meter": """
        meter_id meter tenant_id? event_type aggregation value_pointer? group_names group_pointers window_size
        grace past_limit? future_limit? allows_corrections is_handed_over status created_at active_from
        retired_at? value_path? group_path_1? group_path_2? group_path_3? group_path_4? window_length?
        text_amounts_from?
    """,
    "total": """
        tenant_id meter_id window_start group_key slot value messages first_at last_at closes_at? is_closed
    """,
    "meter_miss": "tenant_id meter_id reason schema_id slot messages first_at last_at last_message_id",
    "voided": "tenant_id message_id producer void_id voided_at",
    "usage_rebuild": "meter_id window_from window_until rebuilt_at",
    "usage_removal": "tenant_id meter_id window_start group_key value messages removed_at",
    "reopened_window": "meter_id window_start reopened_at",
    "usage_batch": """
        batch_id batch_key line_count attempt_count created_at next_attempt_at handed_over_at? trouble?
    """,
    "usage_line": """
        tenant_id meter_id window_start group_key revision value messages total_value total_messages closed_at
        batch_id? handed_over_at? trouble? line_key?
    """,
    "usage_place": "is_current place reason noted_at first_at",
    "api_key": """
        key_id tenant_id name digest created_at revoked_at? event_types? producers? may_void may_correct
        digest_rounds
    """,
    "attempt": "queue delivery_id attempts hangs noted_at",
    "unsettled": "queue delivery_id noted_at",
    "run_message": "run_id tenant_id message_id producer noted_at",
    "retention_floor": "days only_row",
    # Of a view, no column is known to be NOT NULL.
    "usage": """
        tenant_id? meter? event_type? window_start? window_end? group_by? value? messages? revision? state?
        handed_over? first_at? last_at? meter_id?
    """,
}
KEYS = {
    "tenant_pkey": "PRIMARY KEY (tenant_id)",
    "event_type_pkey": "PRIMARY KEY (event_type)",
    "event_schema_pkey": "PRIMARY KEY (schema_id)",
    "event_schema_version_key": "UNIQUE NULLS NOT DISTINCT (event_type, tenant_id, version)",
    "event_schema_typed_key": "UNIQUE (schema_id, event_type)",
    "message_pkey": "PRIMARY KEY (tenant_id, message_id, producer)",
    "message_tenant_fkey": "FOREIGN KEY (tenant_id) REFERENCES tenant(tenant_id)",
    "message_schema_fkey": """
        FOREIGN KEY (schema_id, event_type) REFERENCES event_schema(schema_id, event_type)
    """.strip(),
    "duplicate_pkey": "PRIMARY KEY (queue, delivery_id)",
    "rejection_pkey": "PRIMARY KEY (rejection_id)",
    "rejection_delivery_key": "UNIQUE (queue, delivery_id)",
    "rejection_room_pkey": "PRIMARY KEY (holder, slot)",
    "rejection_rule_pkey": "PRIMARY KEY (rule_id)",
    "rejection_rule_fkey": "FOREIGN KEY (rule_id) REFERENCES rejection_rule(rule_id)",
    "removal_pkey": "PRIMARY KEY (tenant_id, outcome, day)",
    "tenant_reader_pkey": "PRIMARY KEY (role_name, tenant_id)",
    "tenant_reader_tenant_fkey": "FOREIGN KEY (tenant_id) REFERENCES tenant(tenant_id)",
    "meter_pkey": "PRIMARY KEY (meter_id)",
    "meter_name_key": "UNIQUE NULLS NOT DISTINCT (meter, tenant_id)",
    "meter_tenant_fkey": "FOREIGN KEY (tenant_id) REFERENCES tenant(tenant_id)",
    "meter_event_type_fkey": "FOREIGN KEY (event_type) REFERENCES event_type(event_type)",
    "total_pkey": "PRIMARY KEY (tenant_id, meter_id, window_start, group_key, slot)",
    "meter_miss_pkey": "PRIMARY KEY (tenant_id, meter_id, reason, schema_id, slot)",
    "voided_pkey": "PRIMARY KEY (tenant_id, message_id, producer)",
    "usage_rebuild_pkey": "PRIMARY KEY (meter_id, window_from, window_until)",
    "usage_rebuild_meter_fkey": "FOREIGN KEY (meter_id) REFERENCES meter(meter_id) ON DELETE CASCADE",
    "usage_removal_pkey": "PRIMARY KEY (tenant_id, meter_id, window_start, group_key)",
    "reopened_window_pkey": "PRIMARY KEY (meter_id, window_start)",
    "reopened_window_meter_fkey": "FOREIGN KEY (meter_id) REFERENCES meter(meter_id) ON DELETE CASCADE",
    "usage_batch_pkey": "PRIMARY KEY (batch_id)",
    "usage_batch_key": "UNIQUE (batch_key)",
    "usage_line_pkey": "PRIMARY KEY (tenant_id, meter_id, window_start, group_key, revision)",
    "usage_line_meter_fkey": "FOREIGN KEY (meter_id) REFERENCES meter(meter_id)",
    "usage_line_batch_fkey": "FOREIGN KEY (batch_id) REFERENCES usage_batch(batch_id)",
    "usage_place_pkey": "PRIMARY KEY (is_current)",
    "api_key_pkey": "PRIMARY KEY (key_id)",
    "attempt_pkey": "PRIMARY KEY (queue, delivery_id)",
    "unsettled_pkey": "PRIMARY KEY (queue, delivery_id)",
    "run_message_pkey": "PRIMARY KEY (run_id, tenant_id, message_id, producer)",
    "retention_floor_pkey": "PRIMARY KEY (only_row)",
    "api_key_tenant_fkey": "FOREIGN KEY (tenant_id) REFERENCES tenant(tenant_id)",
}


def test_every_table_and_column_is_explained(db: Db) -> None:
    silent = db.execute("""
        SELECT relname, attname
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace::regnamespace::text LIKE 'public%' AND relkind IN ('r', 'v', 'm', 'p')
          AND attnum > 0 AND NOT attisdropped
          AND (col_description(pg_class.oid, attnum) IS NULL
            OR obj_description(pg_class.oid, 'pg_class') IS NULL)
    """).fetchall()

    assert silent == []
    assert _names(db, "SELECT tablename FROM pg_tables WHERE schemaname LIKE 'public%'") == set(TABLES)
    assert _names(db, "SELECT viewname FROM pg_views WHERE schemaname = 'public'") == set(VIEWS)


def test_every_function_of_ours_is_explained(db: Db) -> None:
    silent = _names(
        db,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND obj_description(oid, 'pg_proc') IS NULL",
    )

    assert silent == set()


@pytest.mark.parametrize("table", COLUMNS)
def test_the_columns_of_a_table_are_the_contracts(db: Db, table: str) -> None:
    rows = db.execute(
        "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum",
        [table],
    ).fetchall()

    assert [name if not_null else f"{name}?" for name, not_null in rows] == COLUMNS[table].split()


@pytest.mark.parametrize("name", KEYS)
def test_a_key_contains_what_the_contract_says(db: Db, name: str) -> None:
    definition = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
    row = db.execute(definition, [name]).fetchone()

    assert row == (KEYS[name],)


def test_every_constraint_carries_a_name_of_ours(db: Db) -> None:
    # PostgreSQL 18 keeps NOT NULL (type n) as constraints, too, under names of its own; those say enough.
    names = _names(
        db, "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
    )

    text = "\n".join(path.read_text() for path in (sql_folder() / "migrations").glob("*.sql"))
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
    # The form of a name that PostgreSQL makes up where two would be alike.
    assert {name for name in names if re.search(r"\d$", name)} == set()


def test_key_columns_compare_by_bytes(db: Db) -> None:
    others = db.execute("""
        SELECT attrelid::regclass::text, attname
        FROM pg_constraint
        JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
        WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'f')
          AND atttypid = 'text'::regtype AND attcollation <> '"C"'::regcollation
    """).fetchall()

    assert others == []


def test_moments_have_a_zone_and_end_in_at_or_as_the_end_of_a_span(db: Db) -> None:
    kinds = db.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    ).fetchall()

    for name, kind in kinds:
        assert (kind == "timestamp with time zone") == name.endswith(MOMENT_ENDINGS), name
        assert kind != "timestamp without time zone"


def test_reasons_are_equal_in_python_and_sql(db: Db) -> None:
    row = db.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'rejection_reason_known'"
    ).fetchone()

    assert row is not None
    assert re.findall(r"'(\w+)'", row[0]) == [reason.value for reason in Reason]


def test_what_a_meter_may_miss_and_what_a_group_may_be_called_is_equal_in_python_and_sql(db: Db) -> None:
    definitions: dict[str, str] = dict(
        db.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname IN ('meter_miss_reason_known', 'meter_group_names_fit')"
        ).fetchall()
    )

    reasons = re.findall(r"'(\w+)'", definitions["meter_miss_reason_known"])
    assert sorted(reasons) == sorted(meters_cli.SCHEMA_WORDS | meters_cli.TIME_WORDS)
    assert tuple(re.findall(r"'(\w+)'", definitions["meter_group_names_fit"])) == NAMES_TAKEN


# ── the queries ───────────────────────────────────────────────────────────────────────────────────────


def _texts_of_python(*, without: str = "-") -> set[str]:
    """Every string constant in the package, a folder left out."""
    found: set[str] = set()
    for path in PROCESSOR.rglob("*.py"):
        if without in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_every_query_is_used_by_python(topic: str) -> None:
    unused = queries(topic).keys() - _texts_of_python()

    assert unused == set()


def test_every_query_that_python_names_is_there() -> None:
    used: set[tuple[str, str]] = set()
    for path in PROCESSOR.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        topics = set(re.findall(r'queries\("(\w+)"\)', text))
        used |= set(re.findall(r'queries\("(\w+)"\)\["(\w+)"\]', text))
        used |= set(re.findall(r'_rows\(connection, "(\w+)", "(\w+)"', text))
        if len(topics) == 1:
            (topic,) = topics
            used |= {(topic, name) for name in re.findall(r'(?:\bsql|\b_sql)\["(\w+)"\]', text)}

    assert used
    assert {(topic, name) for topic, name in used if name not in queries(topic)} == set()


@pytest.mark.parametrize("topic", TOPICS)
def test_a_query_has_a_name_of_its_own_a_purpose_and_one_statement(topic: str) -> None:
    text = (sql_folder() / "queries" / f"{topic}.sql").read_text(encoding="utf-8")
    headings = re.findall(r"^-- (\w+): (.+)$", text, re.MULTILINE)

    assert text.startswith("-- ")
    assert len({name for name, _ in headings}) == len(headings)
    for name, purpose in headings:
        assert purpose.endswith("."), name
        assert ";" not in re.sub(r"'[^']*'", "''", queries(topic)[name].rstrip(";")), name


@pytest.mark.parametrize("topic", TOPICS)
def test_a_part_of_queries_is_of_several(topic: str) -> None:
    text = (sql_folder() / "queries" / f"{topic}.sql").read_text(encoding="utf-8")

    used = re.findall(r"(?<!-- )\$[a-z_]+", text)
    assert {
        part for part in re.findall(r"^-- (\$\w+): ", text, re.MULTILINE) if used.count(part) < 2
    } == set()


def test_no_sql_is_written_in_python() -> None:
    # devstack prints questions that people may ask with psql.
    question = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|TRUNCATE|COPY)\s+\S+")
    found = {text[:60] for text in _texts_of_python(without="devstack") if question.match(text)}

    assert found == set()


ADVISORY = re.compile(r"pg_(try_)?advisory_\w*lock", re.IGNORECASE)


def test_no_migration_waits_longer_for_a_lock_than_migrate_lets_it() -> None:
    """All who save wait behind it."""
    longer = {
        path.name
        for path in (sql_folder() / "migrations").glob("*.sql")
        if "SET LOCAL lock_timeout" in path.read_text(encoding="utf-8")
    }

    assert longer == set()


def test_no_lock_is_one_that_anybody_may_take(db: Db) -> None:
    """Whoever may connect can take an advisory lock, and would keep all from saving."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for folder in (PROCESSOR, PROCESSOR.parent / "producers", sql_folder())
        for kind in ("*.py", "*.sql")
        for path in folder.rglob(kind)
    }
    found = {path.name for path, text in texts.items() if ADVISORY.search(text)}

    assert found == set()
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    assert _names(db, f"{functions} AND prosrc ~* 'advisory_(xact_)?(un)?lock'") == set()


def _names(db: Db, query: str) -> set[str]:
    return {name for (name,) in db.execute(query)}
