"""Counted is each message once, whatever the queue does, and the files say so."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.devstack.seed import seed
from processor.devstack.servers.children import free_port
from processor.devstack.servers.sqs import CREDENTIAL, REGION, EmbeddedSqs
from processor.errors import StoreUnavailable
from processor.operations import registry
from processor.runtime.outages import OutageRetry
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.usage.count_files import Replacement
from processor.usage.counter import CountSelection, RunNotes
from processor.wiring import make_schemas, make_store
from processor.wiring.counting import CountsOfRun
from tests.builders import a_delivery
from tests.fixtures.database import MakeSaver, Saver, books, count
from tests.rig import wait_until

Db = psycopg.Connection[Any]
Processor = Callable[..., Result]

# What was sent, by whom: ids count from 1 for each tenant, event type and user.
SENT = [
    ("acme", "created", "ada", 40),
    ("acme", "created", "bob", 25),
    ("acme", "created", "Zoë 田", 7),
    ("acme", "created", "a/b", 2),
    ("acme", "created", "a%2Fb", 3),
    ("globex", "created", "ada", 5),
    ("acme", "updated", "ada", 60),
    ("acme", "updated", "bob", 1),
    ("globex", "updated", "carl", 12),
]

ANSWER = {
    "created.json": '{\n  "Zoë 田": 7,\n  "a%2Fb": 3,\n  "a/b": 2,\n  "ada": 45,\n  "bob": 25\n}\n',
    "deleted.json": "{}\n",
    "updated.json": '{\n  "ada": 60,\n  "bob": 1,\n  "carl": 12\n}\n',
}


def an_event(tenant_id: str, event_type: str, user: str, number: int, **more: Any) -> str:
    """One event, as one of two formats have it; which one depends on its number alone."""
    payload = {"user_id": user}
    if number % 2:
        event: dict[str, Any] = {"id": str(number), "tenant_id": tenant_id, "event_type": event_type}
        return json.dumps(event | {"payload": payload} | more)
    event = {"specversion": "1.0", "id": str(number), "source": "app", "type": event_type}
    return json.dumps(event | {"tenantid": tenant_id, "data": payload} | more)


def a_stream() -> list[str]:
    """The events of SENT, each one to three times, and some that can't count; in order."""
    chance = random.Random(7)
    bodies = [
        an_event(tenant_id, event_type, user, number)
        for tenant_id, event_type, user, count in SENT
        for number in range(1, count + 1)
        for _ in range(chance.choice((1, 1, 2, 3)))
    ]
    contradiction = an_event("acme", "created", "bob", 1, occurred_at="2026-01-01T00:00:00Z")
    return [*bodies, contradiction, "Hello", json.dumps({"tenant_id": "acme", "event_type": "created"})]


def send(sqs: EmbeddedSqs, queue_url: str, bodies: list[str]) -> None:
    client = sqs.client()
    for start in range(0, len(bodies), 10):
        entries: Any = [
            {"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies[start : start + 10])
        ]
        assert len(client.send_message_batch(QueueUrl=queue_url, Entries=entries)["Successful"]) == len(
            entries
        )
    client.close()


@pytest.fixture
def seeded(database_url: str) -> None:
    seed(database_url)


@pytest.fixture
def environment(database_url: str, queue_url: str, sqs_server: EmbeddedSqs, tmp_path: Path) -> dict[str, str]:
    """What a process of `processor run` needs for this test's database and queue."""
    return os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": CREDENTIAL,
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        "HTTP_PORT": "0",
        "RECEIVE_WAIT_S": "1",
        "HOME": str(tmp_path),
    }


def run(environment: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "processor", "run", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in directory.iterdir()}


# ── a known stream ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("seeded")
def test_processes_side_by_side_and_deliveries_in_any_order_give_the_answer_made_by_hand(
    environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, db: Db, tmp_path: Path
) -> None:
    stream = a_stream()
    random.Random(3).shuffle(stream)
    send(sqs_server, queue_url, stream)

    done = run(environment, "--processes", "2", "--until-idle", "1", "--count-to", str(tmp_path / "counts"))

    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "counts") == ANSWER
    kept = books(db)
    assert (kept["message"], sum(kept.values())) == (155, len(stream))
    # Of an event and its contradiction the first that is saved stands, and of the other up to three don't.
    assert 3 <= kept["rejection"] <= 5


@pytest.mark.usefixtures("seeded")
def test_one_event_after_the_other_gives_the_same_files(
    environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path
) -> None:
    send(sqs_server, queue_url, a_stream())
    alone = {"BATCH_SIZE_MAX": "1", "RECEIVERS": "1", "WRITERS": "1", "SETTLERS": "1"}

    done = run(environment | alone, "--until-idle", "1", "--count-to", str(tmp_path / "counts"))

    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "counts") == ANSWER


@pytest.mark.usefixtures("seeded")
def test_a_stop_writes_what_is_committed(
    environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, db: Db, tmp_path: Path
) -> None:
    send(sqs_server, queue_url, [an_event("acme", "created", "ada", number) for number in (1, 2, 3)])
    processor = subprocess.Popen(
        [sys.executable, "-m", "processor", "run", "--count-to", str(tmp_path / "counts")],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: books(db)["message"] == 3, "all are stored")
        processor.send_signal(signal.SIGTERM)

        assert processor.wait(20) == 0
    finally:
        processor.kill()
        processor.wait()

    assert files(tmp_path / "counts")["created.json"] == '{\n  "ada": 3\n}\n'


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_counts_what_it_has_stored_itself_of_one_tenant_and_names_its_files(
    environment: dict[str, str],
    sqs_server: EmbeddedSqs,
    queue_url: str,
    db: Db,
    tmp_path: Path,
    processes: str,
) -> None:
    earlier = [an_event("acme", "created", "ada", number) for number in range(1, 30)]
    send(sqs_server, queue_url, earlier)
    assert run(environment, "--until-idle", "1").returncode == 0
    new = [an_event("acme", "created", user, number) for user in ("ada", "bob") for number in range(25, 50)]
    others = [an_event("globex", "created", "ada", number) for number in range(1, 10)]
    send(sqs_server, queue_url, [*earlier, *new, *new, *others])

    options = ("--processes", processes, "--until-idle", "1", "--count-to", str(tmp_path / "counts"))
    done = run(environment, *options, "--tenant", "acme", "--this-run")

    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "counts") == {
        "created.json": '{\n  "ada": 20,\n  "bob": 25\n}\n',
        "deleted.json": "{}\n",
        "updated.json": "{}\n",
    }
    logged = [json.loads(line) for line in done.stderr.splitlines() if '"counted"' in line]
    assert [(line["path"], line["users"], line["messages"]) for line in logged] == [
        (str(tmp_path / "counts/created.json"), 2, 45),
        (str(tmp_path / "counts/deleted.json"), 0, 0),
        (str(tmp_path / "counts/updated.json"), 0, 0),
    ]
    assert count(db, "run_message") == 0
    # The next one has nothing of its own, and all of it together is still there.
    assert run(environment, *options, "--tenant", "acme", "--this-run").returncode == 0
    assert files(tmp_path / "counts")["created.json"] == "{}\n"
    assert run(environment, *options, "--tenant", "acme").returncode == 0
    assert files(tmp_path / "counts")["created.json"] == '{\n  "ada": 49,\n  "bob": 25\n}\n'


@pytest.mark.usefixtures("seeded")
def test_what_a_killed_run_has_stored_is_counted_later_by_its_name(
    environment: dict[str, str],
    sqs_server: EmbeddedSqs,
    queue_url: str,
    db: Db,
    saver: Saver,
    processor: Processor,
    tmp_path: Path,
) -> None:
    send(sqs_server, queue_url, [an_event("acme", "created", "ada", number) for number in (1, 2, 3)])
    killed = subprocess.Popen(
        [sys.executable, "-m", "processor", "run", "--count-to", str(tmp_path / "counts"), "--this-run"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: books(db)["message"] == 3, "all are stored")
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        _, log = killed.communicate()
    [noted] = [json.loads(line) for line in log.splitlines() if '"run_noted"' in line]

    # Another process, which stores one more, changes nothing of it.
    saver.save(the_event("ada", id="4"))
    words = shlex.split(noted["if_it_ends_without_files"])
    assert words[:2] == ["processor", "count"]
    assert words[-1] == noted["run_id"]
    result = processor(*words[1:])

    assert result.exit_code == 0, result.output
    assert files(tmp_path / "counts")["created.json"] == '{\n  "ada": 3\n}\n'


@pytest.mark.parametrize("option", ["--this-run", "--tenant=acme"])
def test_what_to_count_without_a_place_for_it_is_refused(environment: dict[str, str], option: str) -> None:
    done = run(environment, "--until-idle", "1", option)

    assert done.returncode == 2
    assert "add --count-to DIR" in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_could_not_count_does_not_begin(
    environment: dict[str, str], sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path, processes: str
) -> None:
    send(sqs_server, queue_url, [an_event("acme", "created", "ada", 1)])
    (tmp_path / "file").write_text("")

    without_meter = run(environment, "--processes", processes, "--count-to", str(tmp_path / "counts"))
    without_place = run(environment, "--processes", processes, "--count-to", str(tmp_path / "file"))

    assert without_meter.returncode == 1
    assert "no meter counts messages by user_id alone" in without_meter.stderr.splitlines()[-1]
    assert "processor counter setup --tenant TENANT" in without_meter.stderr.splitlines()[-1]
    assert without_place.returncode == 2
    assert "expected a directory that we may write to" in without_place.stderr.splitlines()[-1]
    source = SqsSource(sqs_server.client(), queue_url, "events", visibility_timeout_s=1)
    assert source.depth()["visible"] == 1


def test_an_outage_at_the_end_of_a_stopped_run_says_how_to_get_the_files_later(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    nowhere = Settings.load(database_url=f"postgresql://127.0.0.1:{free_port()}/x")

    with pytest.raises(StoreUnavailable, match=f"processor count --to {tmp_path} does it later"):
        CountsOfRun(nowhere, tmp_path, CountSelection(), stop).write()


# ── what one run has stored ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make_run(database_url: str) -> Iterator[Callable[[str], Saver]]:
    """Makes savers that note what they store under the name of a run."""
    made: list[Saver] = []

    def make(run_id: str) -> Saver:
        settings = Settings.load(database_url=database_url, sqs_queue_url="http://127.0.0.1/0/events")
        schemas = make_schemas(settings)
        patience = OutageRetry("database", wait_s_max=0.2, stop=threading.Event())
        made.append(Saver(schemas, make_store(settings, schemas, patience, additions=[RunNotes(run_id)])))
        made[-1].store.load_registry()
        return made[-1]

    yield make
    for saver in made:
        saver.close()


@pytest.mark.usefixtures("seeded")
def test_a_message_is_of_the_run_whose_transaction_stored_it(
    make_run: Callable[[str], Saver], saver: Saver, db: Db, processor: Processor, tmp_path: Path
) -> None:
    """Redelivered, repeated, in conflict or void: nothing makes it another's, or makes it count twice."""
    one, other, same = make_run("one"), make_run("other"), make_run("one")
    before = the_event("before", delivery_id="d-0")
    saver.save(before)

    kept = the_event("ada", delivery_id="d-1", receive_count=2)
    outcomes = [
        *one.outcomes(kept, before, the_event("before"), the_event("carl"), the_event("carl")),
        # The answer of a COMMIT that was lost: the same is saved again.
        *one.outcomes(kept),
        *other.outcomes(kept, the_event("ada"), the_event("bob")),
        *other.outcomes(the_event("ada", occurred_at="2026-01-01T00:00:00Z")),
        *same.outcomes(the_event("bob", "updated"), the_event("carl", tenant_id="globex")),
    ]
    void = {"message_id": "1", "producer": "created/carl"}
    other.save(a_delivery(event_type="void", payload=void, sent_now=True))

    assert outcomes == [
        *("stored", "redelivered", "duplicate", "stored", "duplicate"),
        "redelivered",
        *("redelivered", "duplicate", "stored", "id_conflict"),
        *("stored", "stored"),
    ]
    for run_id, created, updated in (
        ("one", {"ada": 1, "carl": 1}, {"bob": 1}),
        ("other", {"bob": 1}, {}),
        ("none", {}, {}),
    ):
        result = processor("count", "--to", tmp_path / run_id, "--run", run_id)
        assert result.exit_code == 0, result.output
        assert ("of 2 tenants are added up" in result.stderr) == (run_id == "one")
        found = files(tmp_path / run_id)
        assert (json.loads(found["created.json"]), json.loads(found["updated.json"])) == (created, updated)
    processor("count", "--to", tmp_path / "acme", "--run", "one", "--tenant", "acme")
    assert json.loads(files(tmp_path / "acme")["created.json"]) == {"ada": 1}


def test_what_runs_left_that_came_to_no_files_goes_with_the_age_of_keys(
    environment: dict[str, str], database_url: str, db: Db, tmp_path: Path
) -> None:
    seed(database_url)
    for run_id, days in (("old", 36), ("young", 34)):
        db.execute(
            "INSERT INTO run_message VALUES (%s, 'acme', '1', '', now() - make_interval(days => %s))",
            [run_id, days],
        )

    done = run(environment, "--until-idle", "1", "--count-to", str(tmp_path / "counts"), "--this-run")

    assert done.returncode == 0, done.stderr
    assert db.execute("SELECT run_id FROM run_message").fetchall() == [("young",)]


# ── ids within a scope ────────────────────────────────────────────────────────────────────────────────


def the_event(user: str = "ada", event_type: str = "created", **more: Any) -> Any:
    more = {"id": "1"} | more
    return a_delivery(event_type=event_type, payload={"user_id": user}, sent_now=True, **more)


@pytest.mark.usefixtures("seeded")
def test_the_same_id_of_another_user_or_type_is_another_message(saver: Saver, db: Db) -> None:
    outcomes = saver.outcomes(
        the_event(),
        the_event("bob"),
        the_event(event_type="updated"),
        the_event(),
        the_event(occurred_at="2026-01-01T00:00:00Z"),
    )

    assert outcomes == ["stored", "stored", "stored", "duplicate", "id_conflict"]
    assert db.execute("SELECT message_id, producer FROM message ORDER BY producer").fetchall() == [
        ("1", "created/ada"),
        ("1", "created/bob"),
        ("1", "updated/ada"),
    ]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("first", ["7", "7.0"])
def test_one_user_is_one_user_whichever_spelling_of_a_number_comes_first(
    saver: Saver, processor: Processor, tmp_path: Path, first: str
) -> None:
    def an_event_of_seven(number: int, spelling: str) -> Any:
        body = an_event("acme", "created", "SEVEN", number).replace('"SEVEN"', spelling)
        return a_delivery(body.encode(), sent_now=True)

    other = "7.0" if first == "7" else "7"
    saver.save(an_event_of_seven(1, first), an_event_of_seven(2, first), an_event_of_seven(2, "700e-2"))

    assert saver.outcomes(an_event_of_seven(1, other), an_event_of_seven(3, other)) == ["duplicate", "stored"]
    processor("count", "--to", tmp_path / "counts")
    assert files(tmp_path / "counts")["created.json"] == '{\n  "7": 3\n}\n'


@pytest.mark.usefixtures("seeded")
def test_a_redelivery_is_known_by_its_key_when_its_tenant_is_suspended_meanwhile(
    saver: Saver, db: Db
) -> None:
    delivery = the_event(delivery_id="d-1")
    saver.save(delivery)
    registry.set_tenant_status(db, "acme", "suspended")

    assert saver.outcomes(delivery) == ["redelivered"]
    assert sum(books(db).values()) == 1


@pytest.mark.usefixtures("seeded")
def test_a_void_that_names_the_stored_producer_takes_a_count_away(
    saver: Saver, db: Db, processor: Processor, tmp_path: Path
) -> None:
    void = {"message_id": "1", "producer": "created/ada"}
    saver.save(the_event(), the_event("bob"))
    saver.save(a_delivery(event_type="void", payload=void, sent_now=True))

    result = processor("count", "--to", tmp_path / "counts")

    assert result.exit_code == 0, result.output
    assert files(tmp_path / "counts")["created.json"] == '{\n  "bob": 1\n}\n'
    assert db.execute("SELECT value FROM usage ORDER BY group_by").fetchall() == [(0,), (1,)]


def test_a_scope_is_published_with_the_first_schema_and_stays(
    processor: Processor, db: Db, tmp_path: Path
) -> None:
    (tmp_path / "any.json").write_text("true")

    def publish(*options: str) -> Result:
        return processor("schema", "publish", "created", tmp_path / "any.json", *options)

    first = publish("--id-scope", "/user_id", "--id-scope", "/place")
    again = publish("--id-scope", "/user_id", "--id-scope", "/place")
    left_out = publish()
    other = publish("--id-scope", "/user_id")

    assert [first.exit_code, again.exit_code, left_out.exit_code, other.exit_code] == [0, 0, 0, 2]
    assert "'created' has a schema already" in other.stderr
    assert "publish under a new name" in other.stderr
    assert db.execute("SELECT id_scope FROM event_type WHERE event_type = 'created'").fetchone() == (
        ["/user_id", "/place"],
    )
    assert "/user_id /place" in processor("schema", "list").stdout
    shown = json.loads(processor("schema", "show", "created", "--json").stdout)
    assert (shown["version"], shown["id_scope"]) == (3, ["/user_id", "/place"])


def test_an_event_type_without_a_schema_can_still_be_given_a_scope(db: Db) -> None:
    db.execute("INSERT INTO event_type (event_type) VALUES ('created')")

    registry.publish_schema(db, "created", {}, id_scope=["/user_id"])

    assert db.execute("SELECT id_scope FROM event_type WHERE event_type = 'created'").fetchone() == (
        ["/user_id"],
    )


def test_a_scope_that_is_no_pointer_is_refused_in_words(processor: Processor, db: Db, tmp_path: Path) -> None:
    (tmp_path / "any.json").write_text("true")

    result = processor("schema", "publish", "created", tmp_path / "any.json", "--id-scope", "user_id")

    assert result.exit_code == 2
    assert "expected at most 4 JSON pointers" in result.stderr
    assert db.execute("SELECT FROM event_type WHERE event_type = 'created'").fetchall() == []


# ── processor count ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def processor(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    """Runs a command of `processor` with the test's database."""
    monkeypatch.chdir(tmp_path)  # A .env of this machine is none of ours.

    def run(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(cli, words, env={"DATABASE_URL": database_url}, prog_name="processor")

    yield run
    structlog.reset_defaults()


def a_counter(
    db: Db, meter: str, *, tenant: str | None = None, of: str = "created", by: str = "user_id"
) -> None:
    """A meter that counts from now on."""
    db.execute(
        "INSERT INTO meter"
        " (meter, tenant_id, event_type, aggregation, group_names, group_pointers, window_size)"
        " VALUES (%s, %s, %s, 'count', ARRAY[%s], ARRAY['/' || %s], 'none')",
        (meter, tenant, of, by, by),
    )


@pytest.mark.usefixtures("seeded")
def test_tenants_are_added_up_and_it_is_said_unless_one_is_named(
    saver: Saver, processor: Processor, tmp_path: Path
) -> None:
    saver.save(the_event(), the_event(tenant_id="globex"), the_event("bob", tenant_id="globex"))

    together = processor("count", "--to", tmp_path / "all")
    globex = processor("count", "--to", tmp_path / "globex", "--tenant", "globex", "--json")
    nobody = processor("count", "--to", tmp_path / "nobody", "--tenant", "nobody")

    assert files(tmp_path / "all")["created.json"] == '{\n  "ada": 2,\n  "bob": 1\n}\n'
    assert "counts of 2 tenants are added up" in together.stderr
    assert files(tmp_path / "globex")["created.json"] == '{\n  "ada": 1,\n  "bob": 1\n}\n'
    assert globex.stderr == ""
    assert json.loads(globex.stdout)[0] == {
        "event_type": "created",
        "file": str(tmp_path / "globex" / "created.json"),
        "users": 2,
        "messages": 2,
    }
    assert nobody.exit_code == 1
    assert "no tenant 'nobody'" in nobody.stderr


@pytest.mark.usefixtures("seeded")
def test_all_files_are_of_one_moment(
    saver: Saver, processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save(the_event())
    write = Replacement.write

    def write_while_events_come(self: Replacement, name: str, entries: Iterator[tuple[str, int]]) -> int:
        users = write(self, name, entries)
        saver.save(
            *(the_event(f"late-{name}", event_type) for event_type in ("created", "updated", "deleted"))
        )
        return users

    monkeypatch.setattr(Replacement, "write", write_while_events_come)

    assert processor("count", "--to", tmp_path / "counts").exit_code == 0
    assert files(tmp_path / "counts") == {
        "created.json": '{\n  "ada": 1\n}\n',
        "deleted.json": "{}\n",
        "updated.json": "{}\n",
    }


@pytest.mark.usefixtures("seeded")
def test_other_files_stay_and_those_of_ours_are_replaced(
    saver: Saver, processor: Processor, tmp_path: Path
) -> None:
    directory = tmp_path / "counts"
    directory.mkdir()
    (directory / "gone.json").write_text("of an earlier run")
    saver.save(the_event())
    processor("count", "--to", directory)
    saver.save(the_event("bob"))

    processor("count", "--to", directory)

    assert files(directory) == {
        "created.json": '{\n  "ada": 1,\n  "bob": 1\n}\n',
        "deleted.json": "{}\n",
        "gone.json": "of an earlier run",
        "updated.json": "{}\n",
    }


def test_counts_are_of_the_one_meter_that_is_active_or_the_one_that_is_named(
    make_saver: MakeSaver, db: Db, processor: Processor, tmp_path: Path
) -> None:
    registry.publish_schema(db, "created", {}, id_scope=["/user_id"])
    a_counter(db, "first")
    saver = make_saver()
    saver.save(the_event())
    db.execute("UPDATE meter SET status = 'retired' WHERE meter = 'first'")
    only_retired = processor("count", "--to", tmp_path / "retired")
    a_counter(db, "second")
    saver.save(the_event("bob"))
    active = processor("count", "--to", tmp_path / "active")
    a_counter(db, "third")

    unclear = processor("count", "--to", tmp_path / "unclear")
    named = processor("count", "--to", tmp_path / "named", "--meter", "first")

    assert [only_retired.exit_code, active.exit_code, unclear.exit_code, named.exit_code] == [0, 0, 2, 0]
    assert files(tmp_path / "retired") == {"created.json": '{\n  "ada": 1\n}\n'}
    assert files(tmp_path / "active") == {"created.json": '{\n  "bob": 1\n}\n'}
    assert files(tmp_path / "unclear") == {}
    assert "several meters: second, third; name the one" in unclear.stderr
    assert files(tmp_path / "named") == {"created.json": '{\n  "ada": 1\n}\n'}


def test_tenants_own_meters_are_added_up_where_no_shared_one_counts_the_same(
    make_saver: MakeSaver, db: Db, processor: Processor, tmp_path: Path
) -> None:
    registry.publish_schema(db, "created", {}, id_scope=["/user_id"])
    a_counter(db, "of-acme", tenant="acme")
    a_counter(db, "of-globex", tenant="globex")
    make_saver().save(the_event(), the_event(tenant_id="globex"))
    both = processor("count", "--to", tmp_path / "both")
    a_counter(db, "shared")

    unclear = processor("count", "--to", tmp_path / "unclear", "--tenant", "acme")

    assert both.exit_code == 0
    assert files(tmp_path / "both") == {"created.json": '{\n  "ada": 2\n}\n'}
    assert unclear.exit_code == 2
    assert "several meters: of-acme, shared" in unclear.stderr


def test_counts_may_be_by_another_name_than_a_users(
    make_saver: MakeSaver, db: Db, processor: Processor, tmp_path: Path
) -> None:
    registry.publish_schema(db, "../x", {})
    a_counter(db, "places", of="../x", by="place")
    make_saver().save(a_delivery(event_type="../x", payload={"place": 7}, sent_now=True))

    result = processor("count", "--to", tmp_path / "counts", "--group", "place")
    nobody = processor("count", "--to", tmp_path / "counts")

    assert result.exit_code == 0
    assert files(tmp_path / "counts") == {"%2e.%2fx.json": '{\n  "7": 1\n}\n'}
    assert nobody.exit_code == 1
    assert "no meter counts messages by user_id alone" in nobody.stderr
