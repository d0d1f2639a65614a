"""`processor check` on real servers: all fine where all is, and each problem provoked for real."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor import registry
from processor.check import Finding
from processor.check.clock import Now, utc_now
from processor.check.database import check_database, judge_version
from processor.check.queue import check_queue, judge_visibility
from processor.cli import cli
from processor.connection import connect
from processor.devstack.children import free_port
from processor.devstack.postgres import EmbeddedPostgres
from processor.devstack.sqs import EmbeddedSqs
from processor.migrations import migrate
from processor.patience import Patience
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.sqs import sqs_client
from processor.store import Store
from processor.wiring import run_check
from tests.builders import ORDER_SCHEMA, a_delivery

Db = psycopg.Connection[Any]
DAY_S = 24 * 3600


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name in ("DATABASE_URL", "SQS_QUEUE_URL"):
            monkeypatch.delenv(name)
    # No wait for a metadata service that isn't there, and no profile of whoever runs the tests.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(sqs_server: EmbeddedSqs, queue_url: str, database_url: str) -> Settings:
    return Settings.load(
        database_url=database_url,
        sqs_queue_url=queue_url,
        aws_endpoint_url=sqs_server.endpoint_url,
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def _with(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def _database(url: str, now: Now = utc_now) -> dict[str, Finding]:
    found = check_database(lambda: connect(url), timeout_s=20, now=now)
    return {finding.what: finding for finding in found}


def _queue(settings: Settings, now: Now = utc_now) -> dict[str, Finding]:
    with closing(sqs_client(settings)) as client:
        return {finding.what: finding for finding in check_queue(client, settings, now)}


def _problems(findings: dict[str, Finding]) -> set[str]:
    for finding in findings.values():
        assert finding.fine or finding.advice, f"{finding.what} is not fine and says not what to do"
    return {what for what, finding in findings.items() if not finding.fine}


def _as(url: str, user: str, **parts: str) -> str:
    split = urlsplit(url)
    return urlunsplit(split._replace(netloc=f"{user}@{split.hostname}:{split.port}", **parts))


# ── a good setup ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server as a deployment has it; the one of the other tests gives up fsync for speed."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("sound")) as server:
        yield server


@pytest.fixture
def writer_url(sound_server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a login that may do what the processor does, and no more."""
    with psycopg.connect(sound_server.url(), autocommit=True) as owner:
        owner.execute("CREATE DATABASE sound")
        with psycopg.connect(sound_server.url("sound"), autocommit=True) as connection:
            migrate(connection)
            registry.add_tenant(connection, "acme")
            registry.publish_schema(connection, "order.created", ORDER_SCHEMA)
        owner.execute("CREATE ROLE worker LOGIN IN ROLE processor_writer")
        yield sound_server.url("sound", "worker")
        owner.execute("DROP DATABASE sound WITH (FORCE)")
        owner.execute("DROP ROLE worker")


def test_a_good_setup_is_fine_and_needs_no_advice(writer_url: str, settings: Settings) -> None:
    findings = run_check(_with(settings, database_url=_secret(writer_url)))

    assert [f for f in findings if not f.fine or f.advice] == []
    assert {finding.what for finding in findings} == {
        "database",
        "database version",
        "encoding",
        "writable",
        "fsync",
        "full_page_writes",
        "synchronous_commit",
        "database clock",
        "pooler",
        "migrations",
        "rights",
        "least privilege",
        "registry",
        "queue",
        "queue clock",
        "backlog",
        "retention",
        "message size",
        "visibility timeout",
        "max receive count",
        "dead-letter queue",
        "dead-letter retention",
    }


def test_the_rights_that_it_asks_for_are_enough_to_save(writer_url: str) -> None:
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64)
    patience = Patience("database", wait_s_max=0.2, stop=threading.Event())
    store = Store(lambda: connect(writer_url, timeout_s=20), schemas, patience, timeout_s=20)
    with closing(store):
        store.load_registry()
        deliveries = [a_delivery(id="o-1"), a_delivery(id="o-1"), a_delivery(b"nonsense")]

        settlements = store.save([schemas.validate(delivery) for delivery in deliveries])

    assert [settlement.outcome.value for settlement in settlements] == ["stored", "duplicate", "rejected"]


def _secret(value: str) -> Any:
    return Settings.load(database_url=value).database_url


# ── the database ──────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_may_forget_is_a_problem(server_url: str, database_url: str, db: Db) -> None:
    """The server of the tests runs without fsync, unless it is somebody's own."""
    expected = {
        name for name in ("fsync", "full_page_writes") if db.execute(f"SHOW {name}").fetchone() == ("off",)
    }
    if os.environ.get("DATABASE_URL_TEST") is None:
        assert expected == {"fsync", "full_page_writes"}

    assert _problems(_database(database_url)) == expected


def test_an_owner_is_told_to_use_less(database_url: str) -> None:
    finding = _database(database_url)["least privilege"]

    assert finding.fine
    assert "superuser" in finding.found
    assert "processor_writer" in (finding.advice or "")


def test_the_owner_of_the_tables_is_told_to_use_less(database_url: str, db: Db) -> None:
    db.execute("CREATE ROLE some_owner LOGIN")
    try:
        db.execute("GRANT processor_writer TO some_owner")
        db.execute("ALTER TABLE message OWNER TO some_owner")

        finding = _database(_as(database_url, "some_owner"))["least privilege"]
    finally:
        db.execute("REASSIGN OWNED BY some_owner TO CURRENT_USER")
        db.execute("DROP OWNED BY some_owner")
        db.execute("DROP ROLE some_owner")

    assert finding.fine
    assert "owner of the tables" in finding.found


def test_a_database_without_tables_names_the_command(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated")
        try:
            finding = _database(_as(server_url, urlsplit(server_url).username or "", path="/unmigrated"))[
                "migrations"
            ]
        finally:
            admin.execute("DROP DATABASE unmigrated WITH (FORCE)")

    assert not finding.fine
    assert "0000_migration" in finding.found
    assert "processor migrate" in (finding.advice or "")


def _note_migration(db: Db, *, breaks: bool) -> None:
    db.execute("INSERT INTO migration VALUES (9001, 'from_the_future', 'x', %s)", [breaks])


def test_a_newer_database_is_fine_and_told(database_url: str, db: Db) -> None:
    _note_migration(db, breaks=False)

    finding = _database(database_url)["migrations"]

    assert finding.fine
    assert "9001_from_the_future" in finding.found


def test_a_newer_database_that_breaks_us_is_a_problem(database_url: str, db: Db) -> None:
    _note_migration(db, breaks=True)

    assert "migrations" in _problems(_database(database_url))


def test_an_edited_migration_is_a_problem(database_url: str, db: Db) -> None:
    db.execute("UPDATE migration SET checksum = 'other' WHERE number = 1")

    findings = _database(database_url)

    assert "migrations" in _problems(findings)
    assert "0001_registry" in findings["migrations"].found


def _alter(db: Db, setting: str) -> None:
    row = db.execute("SELECT current_database()").fetchone()
    assert row is not None
    db.execute(f"ALTER DATABASE {row[0]} SET {setting}")


def test_synchronous_commit_off_is_fine_and_told(database_url: str, db: Db) -> None:
    _alter(db, "synchronous_commit = off")

    finding = _database(database_url)["synchronous_commit"]

    assert (finding.fine, finding.found) == (True, "off")
    assert "raise it" in (finding.advice or "")


def test_a_read_only_database_is_a_problem(database_url: str, db: Db) -> None:
    _alter(db, "default_transaction_read_only = on")

    assert "writable" in _problems(_database(database_url))


def test_another_encoding_is_a_problem(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            findings = _database(_as(server_url, urlsplit(server_url).username or "", path="/latin"))
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")

    assert findings["encoding"].found == "LATIN1"
    assert "encoding" in _problems(findings)


def test_an_old_server_is_a_problem() -> None:
    """No PostgreSQL 14 is at hand: the judgement alone."""
    assert judge_version(150000, "15.0").fine
    assert not judge_version(140012, "14.12").fine


@pytest.fixture
def stranger_url(database_url: str, db: Db) -> Iterator[str]:
    """The URL of a login without any right of ours."""
    db.execute("CREATE ROLE stranger LOGIN")
    yield _as(database_url, "stranger")
    db.execute("DROP OWNED BY stranger")
    db.execute("DROP ROLE stranger")


def test_a_role_without_rights_is_told_what_to_grant(stranger_url: str) -> None:
    findings = _database(stranger_url)

    assert "migrations" in _problems(findings)
    assert "GRANT processor_writer TO stranger" in (findings["migrations"].advice or "")


def test_a_role_that_may_only_read_lacks_rights(stranger_url: str, db: Db) -> None:
    db.execute("GRANT processor_reader TO stranger")

    findings = _database(stranger_url)

    assert "rights" in _problems(findings)
    assert "INSERT on message" in findings["rights"].found
    assert "SELECT" not in findings["rights"].found


def test_one_missing_right_is_named(stranger_url: str, db: Db) -> None:
    db.execute("GRANT processor_writer TO stranger")
    assert _database(stranger_url)["rights"].fine
    db.execute("REVOKE ALL ON FUNCTION registry_version_held() FROM PUBLIC")

    assert _database(stranger_url)["rights"].found == "lacking: EXECUTE on registry_version_held()"


def test_a_schema_that_may_not_be_used_is_said(stranger_url: str, db: Db) -> None:
    db.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")

    finding = _database(stranger_url)["migrations"]

    assert not finding.fine
    assert "no schema of its search_path" in finding.found


def test_an_empty_registry_is_told(database_url: str, db: Db) -> None:
    db.execute("UPDATE tenant SET status = 'suspended'")

    finding = _database(database_url)["registry"]

    assert finding.fine
    assert "processor tenant add" in (finding.advice or "")


@pytest.mark.parametrize(("shift_s", "side"), [(5, "behind ours"), (-5, "ahead of ours")])
def test_a_clock_that_is_off_is_a_problem(database_url: str, shift_s: int, side: str) -> None:
    findings = _database(database_url, lambda: datetime.now(UTC) + timedelta(seconds=shift_s))

    assert "database clock" in _problems(findings)
    assert side in findings["database clock"].found


def test_a_closed_port_is_one_finding() -> None:
    findings = _database(f"postgresql://postgres@127.0.0.1:{free_port()}/none")

    assert [(f.what, f.fine, f.unreachable) for f in findings.values()] == [("database", False, True)]
    assert "Connection refused" in findings["database"].found


def test_a_refused_login_is_a_problem_and_no_outage(database_url: str) -> None:
    finding = _database(_as(database_url, "nobody_at_all"))["database"]

    assert (finding.fine, finding.unreachable) == (False, False)
    assert "nobody_at_all" not in finding.found


def test_a_table_that_is_locked_does_not_hold_the_check_for_ever(database_url: str, db: Db) -> None:
    with db.transaction():
        db.execute("LOCK TABLE migration IN ACCESS EXCLUSIVE MODE")

        findings = check_database(lambda: connect(database_url), timeout_s=0.5)

    assert findings[-1].unreachable
    assert len(findings) > 1


class _Lent:
    """One of several client connections of a pooler that lends them one server session by turns."""

    def __init__(self, session: Db) -> None:
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """The session stays with the pooler."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_two_connections_with_one_server_session_give_a_pooler_away(db: Db) -> None:
    lend: Callable[[], Any] = lambda: _Lent(db)  # noqa: E731 - a stand-in for a function of connections

    findings = {finding.what: finding for finding in check_database(lend, timeout_s=20)}

    assert "pooler" in _problems(findings)
    assert "pool_mode = session" in (findings["pooler"].advice or "")


@pytest.fixture(params=["transaction", "session"])
def pooler_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """The URL of a real PgBouncer in front of the database, in each of the two modes."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    server, port = urlsplit(database_url), free_port()
    name = server.path.strip("/")
    # PgBouncer refuses to run as root, and the user it runs as then must be able to read this.
    identity: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="event-processor-pgbouncer-") as directory:
        configuration = Path(directory) / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n{name} = host={server.hostname} port={server.port} user={server.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {request.param}\n"
        )
        Path(directory).chmod(0o755)
        process = subprocess.Popen(
            [program, "-q", str(configuration)],
            stderr=subprocess.PIPE,
            **(identity if os.geteuid() == 0 else {}),
        )
        try:
            _wait_for_port(port, process)
            yield f"postgresql://{server.username}@127.0.0.1:{port}/{name}"
        finally:
            process.terminate()
            process.communicate()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("pgbouncer does not listen")


def test_a_real_pgbouncer_is_a_problem_only_in_transaction_mode(
    pooler_url: str, request: pytest.FixtureRequest
) -> None:
    mode = request.node.callspec.params["pooler_url"]

    assert ("pooler" in _problems(_database(pooler_url))) == (mode == "transaction")


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────


def _set(sqs_server: EmbeddedSqs, url: str, **attributes: str) -> None:
    with closing(sqs_server.client()) as client:
        client.set_queue_attributes(QueueUrl=url, Attributes=attributes)  # type: ignore[arg-type]


def _new_queue(sqs_server: EmbeddedSqs, name: str, **attributes: str) -> str:
    with closing(sqs_server.client()) as client:
        return client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]


def test_a_good_queue_is_fine(settings: Settings) -> None:
    assert _problems(_queue(settings)) == set()


def test_a_queue_without_a_dead_letter_queue_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs
) -> None:
    url = _new_queue(sqs_server, "lonely")

    findings = _queue(_with(settings, sqs_queue_url=url))

    assert _problems(findings) == {"dead-letter queue"}
    assert findings["dead-letter queue"].found == "none"


def test_a_dead_letter_queue_that_is_gone_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    with closing(sqs_server.client()) as client:
        client.delete_queue(QueueUrl=queue_url + "-dlq")

    findings = _queue(settings)

    assert _problems(findings) == {"dead-letter queue"}
    assert "does not exist" in findings["dead-letter queue"].found


def test_a_small_max_receive_count_is_a_problem(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    sqs_server.create_queue(settings.queue_name(), max_receive_count=3)

    findings = _queue(settings)

    assert _problems(findings) == {"max receive count"}
    assert findings["max receive count"].found == "3"


def test_a_short_retention_is_a_problem(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    _set(sqs_server, queue_url, MessageRetentionPeriod=str(DAY_S))

    findings = _queue(settings)

    assert _problems(findings) == {"retention"}
    assert findings["retention"].found == "1 days"


def test_dead_letters_must_be_kept_for_longer_than_the_living(
    settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    _set(sqs_server, queue_url + "-dlq", MessageRetentionPeriod=str(4 * DAY_S))

    assert _problems(_queue(settings)) == {"dead-letter retention"}


def test_dead_letters_are_told(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    with closing(sqs_server.client()) as client:
        client.send_message(QueueUrl=queue_url + "-dlq", MessageBody="dead")
        client.send_message(QueueUrl=queue_url, MessageBody="alive")

    findings = _queue(settings)

    assert _problems(findings) == set()
    assert "1 message(s)" in findings["dead-letter queue"].found
    assert findings["dead-letter queue"].advice
    assert findings["backlog"].found.startswith("1 visible, 0 in flight")


def test_looking_burns_no_receive(settings: Settings, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    with closing(sqs_server.client()) as client:
        client.send_message(QueueUrl=queue_url, MessageBody="alive")
        _queue(settings)

        [message] = client.receive_message(
            QueueUrl=queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )["Messages"]

    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_queue_that_takes_more_than_we_do_is_a_problem(settings: Settings) -> None:
    findings = _queue(_with(settings, body_bytes_max=1024))

    assert _problems(findings) == {"message size"}


def test_a_fifo_queue_is_fine_and_told(settings: Settings, sqs_server: EmbeddedSqs) -> None:
    dead = _new_queue(
        sqs_server, "ordered-dlq.fifo", FifoQueue="true", MessageRetentionPeriod=str(14 * DAY_S)
    )
    arn = f"arn:aws:sqs:us-east-1:000000000000:{dead.rsplit('/', 1)[-1]}"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 10})
    url = _new_queue(sqs_server, "ordered.fifo", FifoQueue="true", RedrivePolicy=redrive)

    findings = _queue(_with(settings, sqs_queue_url=url))

    assert _problems(findings) == set()
    assert findings["queue"].found == "ordered.fifo, FIFO"
    assert findings["queue"].advice


def test_a_missing_queue_is_a_problem_and_no_outage(settings: Settings) -> None:
    findings = _queue(_with(settings, sqs_queue_url=f"{settings.sqs_queue_url}-not"))

    assert _problems(findings) == {"queue"}
    assert not findings["queue"].unreachable
    assert "does not exist" in findings["queue"].found


def test_a_queue_whose_clock_is_off_is_a_problem(settings: Settings) -> None:
    findings = _queue(settings, lambda: datetime.now(UTC) - timedelta(minutes=6))

    assert _problems(findings) == {"queue clock"}
    assert "ahead of ours" in findings["queue clock"].found


def test_an_endpoint_that_is_closed_is_one_finding(settings: Settings) -> None:
    where = f"127.0.0.1:{free_port()}"
    findings = _queue(_with(settings, aws_endpoint_url=f"http://{where}"))

    assert [(f.what, f.fine, f.unreachable) for f in findings.values()] == [("queue", False, True)]
    assert where in findings["queue"].found


def test_no_credentials_is_a_problem_and_no_outage(settings: Settings) -> None:
    findings = _queue(_with(settings, aws_access_key_id=None, aws_secret_access_key=None))

    assert _problems(findings) == {"queue"}
    assert not findings["queue"].unreachable
    assert "credentials" in findings["queue"].found


def test_no_region_is_a_problem(settings: Settings) -> None:
    [finding] = [f for f in run_check(_with(settings, aws_region=None)) if f.what == "queue"]

    assert not finding.fine
    assert "AWS_REGION" in (finding.advice or "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"visibility_timeout_s": 30}, "VISIBILITY_TIMEOUT_S to 53"),
        ({"database_timeout_s": 60}, "VISIBILITY_TIMEOUT_S to 90"),
        ({"visibility_timeout_s": 43_200}, "HOLD_S_MAX to 0"),
        ({"hold_s_max": 43_000, "visibility_timeout_s": 300}, "HOLD_S_MAX to 42900"),
    ],
)
def test_a_visibility_timeout_that_is_off_is_a_problem(changes: dict[str, int], word: str) -> None:
    finding = judge_visibility(Settings.load(**changes), own_s=30, read_timeout_s=35)

    assert not finding.fine
    assert word in (finding.advice or "")


def test_the_defaults_are_judged_fine() -> None:
    assert judge_visibility(Settings.load(), own_s=30, read_timeout_s=35).fine


# ── the command ───────────────────────────────────────────────────────────────────────────────────────


def _check(settings: Settings, **environment: str) -> Result:
    named = {
        "DATABASE_URL": settings.need_database_url(),
        "SQS_QUEUE_URL": settings.need_queue_url(),
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    return CliRunner().invoke(cli, ["check", "--json"], env={**named, **environment})


def test_the_command_is_content_with_a_good_setup(writer_url: str, settings: Settings) -> None:
    result = _check(settings, DATABASE_URL=writer_url)

    assert result.exit_code == 0
    assert all(finding["fine"] for finding in json.loads(result.stdout))


def test_a_problem_is_exit_code_3(writer_url: str, settings: Settings) -> None:
    assert _check(settings, DATABASE_URL=writer_url, BODY_BYTES_MAX="1024").exit_code == 3


@pytest.mark.parametrize(("variable", "what"), [("DATABASE_URL", "database"), ("SQS_QUEUE_URL", "queue")])
def test_what_is_not_set_is_said_and_the_other_is_looked_at(
    writer_url: str, settings: Settings, variable: str, what: str
) -> None:
    result = _check(settings, **{"DATABASE_URL": writer_url, variable: ""})

    assert result.exit_code == 3
    [problem] = [finding for finding in json.loads(result.stdout) if not finding["fine"]]
    assert (problem["what"], problem["found"]) == (what, f"{variable} is not set")
    assert len(json.loads(result.stdout)) > 5


@pytest.mark.parametrize("away", ["database", "queue"])
def test_what_is_away_is_exit_code_4_and_the_other_is_looked_at(
    writer_url: str, settings: Settings, away: str
) -> None:
    port = free_port()
    change = (
        {"DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/none"}
        if away == "database"
        else {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    )
    result = _check(settings, **{"DATABASE_URL": writer_url, **change})

    assert result.exit_code == 4
    [problem] = [finding for finding in json.loads(result.stdout) if not finding["fine"]]
    assert (problem["what"], problem["unreachable"]) == (away, True)
    assert len(json.loads(result.stdout)) > 5


def test_people_get_a_table(settings: Settings) -> None:
    result = CliRunner().invoke(cli, ["check"], env={"DATABASE_URL": "", "SQS_QUEUE_URL": ""})

    assert result.exit_code == 3
    assert "DATABASE_URL is not set" in result.stdout
    assert "what to do" in result.stdout
