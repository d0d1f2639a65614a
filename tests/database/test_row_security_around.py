"""Around row-level security: savers that would see a part, servers without the role, and backups."""

import re
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.database.migrations import migrate
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.errors import StoreFault
from processor.operations import registry
from processor.operations.audit import audit
from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.validation.tenant_bindings import Bindings
from processor.wiring.commands import apply_retention, plan_retention, replay, run_audit
from processor.wiring.service import Stops, run
from tests.builders import a_delivery
from tests.fixtures.database import LogIn, a_bound_saver, books, login_of
from tests.fixtures.tenants import OWNERS, map_tenants, owners

Db = psycopg.Connection[Any]

# ── a saver from whom rows are hidden does not start, and does not go on ──────────────────────────────


def test_a_saver_from_whom_rows_are_hidden_does_not_start(log_in: LogIn) -> None:
    url = log_in("processor_writer", "processor_tenant_reader", name="both")

    with pytest.raises(StoreFault, match=r"hides rows of .*message.* processor_tenant_reader"):
        a_bound_saver(url, Bindings())


def test_run_ends_before_it_receives_anything_where_rows_are_hidden(log_in: LogIn) -> None:
    settings = Settings.load(
        database_url=log_in("processor_writer", "processor_tenant_reader", name="runs"),
        sqs_queue_url="http://127.0.0.1:1/000000000000/events",
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        keep_to_one_core="off",
        http_port=0,
    )

    with pytest.raises(StoreFault, match="take it out of processor_tenant_reader"):
        run(settings, Stops(threading.Event(), threading.Event()))


def test_a_saver_does_not_start_where_no_policy_lets_it_see(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer")
    db.execute("DROP POLICY duplicate_open ON duplicate")

    with pytest.raises(StoreFault, match=r"hides rows of duplicate .*put_up_tenant_walls"):
        a_bound_saver(url, Bindings())

    db.execute("SELECT put_up_tenant_walls()")
    a_bound_saver(url, Bindings()).close()


def test_a_grant_while_a_processor_runs_ends_it_before_it_stores_twice(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer", name="running")
    with closing(a_bound_saver(url, Bindings())) as saver:
        before = a_delivery(tenant_id="newcomer")
        assert saver.outcomes(before) == ["unknown_tenant"]
        registry.add_tenant(db, "newcomer")
        # For any other tenant the wall itself would refuse the row.
        map_tenants(db, url, "newcomer")
        db.execute(f"GRANT processor_tenant_reader TO {login_of(url)}")

        with pytest.raises(StoreFault, match="42501"):
            saver.save(before)

    assert books(db) == {"message": 0, "duplicate": 0, "rejection": 1}


def test_commands_that_count_or_remove_do_not_work_on_a_part(log_in: LogIn, db: Db) -> None:
    url = log_in("processor_writer", "processor_retention", "processor_tenant_reader", name="all_three")
    settings = Settings.load(database_url=url, message_retention_days=40, sqs_queue_url=None)
    deeds = (
        lambda: run_audit(settings, []),
        lambda: plan_retention(settings),
        lambda: apply_retention(
            settings, step_size=10, pause_s=0, stop=threading.Event(), on_step=lambda _step: None
        ),
        lambda: replay(settings, RejectionSelection(), dry_run=True, forced=False),
    )

    for deed in deeds:
        with pytest.raises(StoreFault, match="row-level security hides rows"):
            deed()


# ── where the role could not be made ──────────────────────────────────────────────────────────────────


def test_without_the_role_nothing_is_walled_until_it_is_there(tmp_path: Path) -> None:
    """A server of its own, since roles belong to the whole server."""
    with EmbeddedPostgres(tmp_path / "server", fsync=False, passwords=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("CREATE ROLE hosted LOGIN")
            admin.execute("CREATE DATABASE hosted OWNER hosted")
        heard: list[str] = []
        with psycopg.connect(server.url("hosted", "hosted"), autocommit=True) as owner:
            migrate(owner, heard.append)

            assert any("put_up_tenant_walls()" in words for words in heard)
            assert owner.execute("SELECT put_up_tenant_walls()").fetchone() == (False,)
            # But for the one that needs no role.
            assert owner.execute("SELECT polname FROM pg_policy").fetchall() == [("queue_open",)]

            with psycopg.connect(server.url(), autocommit=True) as admin:
                admin.execute("CREATE ROLE processor_tenant_reader NOLOGIN")
                admin.execute("CREATE ROLE acme_reader LOGIN IN ROLE processor_tenant_reader")
            assert owner.execute("SELECT put_up_tenant_walls()").fetchone() == (True,)
            for tenant in ("acme", "globex"):
                registry.add_tenant(owner, tenant)
            owner.execute("INSERT INTO tenant_reader VALUES ('acme_reader', 'acme')")
            assert audit(owner, [], None).holds

        with psycopg.connect(server.url("hosted", "acme_reader"), autocommit=True) as acme:
            assert owners(acme, "tenant") == {"acme"}


# ── backups ───────────────────────────────────────────────────────────────────────────────────────────


def _dump(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    program = find_binaries(server_account()) / "pg_dump"
    return subprocess.run([program, *options, url], capture_output=True, text=True, check=False, timeout=60)


def test_a_dump_is_whole_or_it_fails(two_tenants: None, log_in: LogIn, acme_url: str) -> None:
    whole = _dump(log_in("pg_read_all_data", name="backup"), "--enable-row-security", "--data-only")
    by_another = _dump(log_in("pg_read_all_data", name="careless"), "--data-only")
    by_tenant = _dump(acme_url, "--data-only")

    assert whole.returncode == 0, whole.stderr
    assert "of globex" in whole.stdout
    for failed in (by_another, by_tenant):
        assert failed.returncode == 1
        assert "of globex" not in failed.stdout
    assert "row-level security" in by_another.stderr


def test_a_restored_dump_has_its_walls(
    acme_url: str, database_url: str, server_url: str, tmp_path: Path
) -> None:
    dumped = _dump(database_url)
    assert dumped.returncode == 0, dumped.stderr
    # A setting that servers older than our pg_dump don't know.
    text = re.sub(r"(?m)^SET transaction_timeout = 0;$", "", dumped.stdout)
    (tmp_path / "dump.sql").write_text(text)
    psql = find_binaries(server_account()) / "psql"
    name = urlsplit(database_url).path.strip("/") + "_restored"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            restored = urlsplit(acme_url)._replace(path=f"/{name}").geturl()
            owners_url = urlsplit(database_url)._replace(path=f"/{name}").geturl()
            subprocess.run(
                [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "dump.sql"), owners_url],
                check=True,
                capture_output=True,
                timeout=60,
            )
            with psycopg.connect(restored, autocommit=True) as acme:
                for table in OWNERS:
                    assert owners(acme, table) - {None} == {"acme"}, table
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
