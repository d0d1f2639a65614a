"""What the documents tell people to type works, word for word."""

import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.check.roles import look_at_roles
from tests.builders import a_delivery
from tests.fixtures.check import problems
from tests.fixtures.database import LogIn, Saver, login_of
from tests.journeys import dev

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

ROOT = Path(__file__).resolve().parents[2]


def _blocks(page: str, heading: str) -> list[str]:
    """The SQL below a heading of a page of the reference."""
    text = (ROOT / "docs/reference" / page).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```sql\n(.*?)```", section, re.DOTALL)


QUESTIONS = _blocks("queries.md", "Ten questions")


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_of_the_dba_has_an_answer(
    saver: Saver, db: psycopg.Connection[Any], question: str
) -> None:
    saver.save(
        a_delivery(b'{"id": "order-1", "tenant_id": "acme", "event_type": "order.created", "payload": {}}'),
        a_delivery(id="order-1"),
        a_delivery(id="order-1"),
    )
    db.execute("INSERT INTO event_type VALUES ('pulse')")
    db.execute("INSERT INTO event_schema (event_type, version, definition) VALUES ('pulse', 1, '{}')")
    pulse = b'{"tenant_id": "acme", "product_sku": "vm", "used_amount": 0.1, "use_unity": "GB"}'
    saver.save(*[a_delivery(pulse, sent_now=True) for _ in range(3)])

    rows = db.execute(question.encode()).fetchall()

    assert rows
    assert any(value is not None for value in rows[0])


TOTALS = _blocks("queries.md", "Questions on totals")


@pytest.fixture
def counted(saver: Saver, db: psycopg.Connection[Any]) -> None:
    """Pulses of acme in this hour, one that can't be counted, and a window that was closed twice."""
    db.execute("INSERT INTO event_type VALUES ('pulse')")
    db.execute("INSERT INTO event_schema (event_type, version, definition) VALUES ('pulse', 1, '{}')")
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers,"
        " is_handed_over) VALUES ('pulse', 'pulse', 'sum', '/used_amount', '{product_sku,use_unity}',"
        " '{/product_sku,/use_unity}', true)"
    )
    for sku in ("vm", None):
        payload = {"product_sku": sku, "used_amount": 0.1, "use_unity": "GB"}
        saver.save(a_delivery(event_type="pulse", payload=payload, sent_now=True))
    db.execute(
        "INSERT INTO usage_line SELECT tenant_id, meter_id, window_start, group_key, revision, 0.05, 1,"
        " 0.05 * revision, 1 FROM total, generate_series(1, 2) AS lines (revision)"
    )
    [key] = re.findall(r"line_key = '(\w+)'", "".join(TOTALS))
    db.execute("UPDATE usage_line SET line_key = %s WHERE revision = 1", [key])
    db.execute("INSERT INTO voided VALUES ('acme', 'one that never came', '', 'v-1', now())")


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("question", [block for block in TOTALS if block.startswith("SELECT")])
def test_a_question_on_totals_has_an_answer(db: psycopg.Connection[Any], question: str) -> None:
    rows = db.execute(question.encode()).fetchall()

    assert len(rows) in (1, 2)
    assert any(value is not None for value in rows[0])


@pytest.mark.usefixtures("counted")
def test_a_meter_is_made_and_retired_as_the_page_for_dbas_says(db: psycopg.Connection[Any]) -> None:
    [statements] = [block for block in TOTALS if block.startswith("INSERT")]

    for statement in statements.split(";\n"):
        db.execute(statement.encode())

    row = db.execute("SELECT status, grace::text FROM meter WHERE meter = 'by_product'").fetchone()
    assert row == ("retired", "01:00:00")


def test_a_tenants_reader_is_let_in_sees_its_rows_and_is_let_out(
    saver: Saver, database_url: str, db: psycopg.Connection[Any]
) -> None:
    let_in, ask, let_out = _blocks("roles.md", "Readers of one tenant")
    saver.save(a_delivery(), a_delivery(tenant_id="globex"))

    db.execute(let_in.encode())
    found = {finding.what: finding for finding in look_at_roles(db, "postgres", superuser=True)}
    parts = urlsplit(database_url)
    url = parts._replace(netloc=f"acme_reader:change%20me@{parts.hostname}:{parts.port}").geturl()
    try:
        with psycopg.connect(url, autocommit=True) as acme:
            counts = [row[1] for row in acme.execute(ask.encode())]
            db.execute(let_out.split(";")[0].encode())
            nothing = acme.execute(ask.encode()).fetchall()
    finally:
        db.execute(let_out.encode())

    assert counts == [1]
    assert nothing == []
    assert problems(found) == set()
    assert found["tenant limits"].found == "set for each tenant reader"


def test_what_the_page_says_against_a_tenants_login_works(log_in: LogIn, db: psycopg.Connection[Any]) -> None:
    give_back, no_way, end = _blocks("roles.md", "What a tenant's login could do to the others")
    application, tenant = log_in(name="application"), log_in("processor_tenant_reader", name="idler")
    warden = log_in("pg_signal_backend", "pg_read_all_stats", name="warden")

    words = {"DATABASE events": f"DATABASE {db.info.dbname}", "application": login_of(application)}
    db.execute(re.sub("|".join(words), lambda found: words[found[0]], give_back).encode())
    with psycopg.connect(application) as session:
        session.execute("SELECT pg_advisory_lock(1)")
        session.execute("CREATE TEMPORARY TABLE its_own ()")
        session.execute("DO $$ BEGIN END $$")
    with db.transaction(force_rollback=True):
        db.execute(no_way.encode())
    with (
        closing(psycopg.connect(tenant)) as idle,
        psycopg.connect(warden, autocommit=True) as watching,
    ):
        idle.execute("SELECT FROM message")
        assert watching.execute(end.encode()).fetchall() == []
        ended = watching.execute(end.replace("1 minute", "0 s").encode()).fetchall()
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT FROM message")

    assert ended == [(True,)]


def test_the_readme_s_two_terminals_show_a_bad_event_and_why(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    first = next(block for block in blocks if "processor dev --env-file dev.env" in block)
    second = next(block for block in blocks if "awslocal" in block)

    with dev.running(tmp_path, first):
        done = subprocess.run(
            ["bash", "-e", "-c", second],
            cwd=tmp_path,
            env=dev.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 0, done.stderr
    assert re.search(r"^message .* acme +u-1 ", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"schema_violation +acme +order.created +o-1 .*\"order_id\" is a required", done.stdout)
