"""`processor run` as operators meet it: outages, stops, absent dependencies, several processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from tests.chaos.servers import frozen
from tests.rig import Rig, wait_until

UNFINISHED = 4
"""The exit code of a run that was stopped during an outage, or with work left."""


def rows(rig: Rig, table: str = "message") -> int:
    with psycopg.connect(rig.stack.database_url, autocommit=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return 0 if row is None else int(row[0])


def test_an_outage_of_the_database_costs_no_event_and_no_receive(rig: Rig) -> None:
    rig.start_processor()
    producers = rig.send(1, 1500)
    rig.wait_until_busy()

    rig.stack.postgres.stop()
    wait_until(lambda: "database" in rig.ready()[1], "the outage shows on /readyz")
    status, body = rig.ready()
    assert producers.wait(60) == 0
    rig.stack.postgres.start()
    rig.wait_until_empty()

    assert status == 503
    assert "postgres" not in body, "no part of the DSN"
    report = rig.audit()
    assert report.holds, report.text()
    with psycopg.connect(rig.stack.database_url) as connection:
        counts = connection.execute("SELECT DISTINCT receive_count FROM message").fetchall()
    assert counts == [(1,)], "nothing was handed over twice because of it"


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_an_idle_run_finds_out_by_itself_that_the_database_is_away_and_when_it_is_back(
    rig: Rig, fault: str
) -> None:
    rig.start_processor()
    wait_until(lambda: rig.ready()[0] == 200, "it works")
    wait_until(lambda: rig.sessions() > 0, "it has asked the database")

    with frozen(rig.stack.postgres) if fault == "frozen" else contextlib.nullcontext():
        if fault == "stopped":
            rig.stack.postgres.stop()
        wait_until(lambda: "database" in rig.ready()[1], "the outage shows on /readyz", wait_s=12)
        assert rig.metric("processor_database_errors_total") > 0
    if fault == "stopped":
        rig.stack.postgres.start()

    wait_until(lambda: rig.ready()[0] == 200, "it is noticed that it is back", wait_s=15)
    assert rig.log().count("outage  ") == rig.log().count("outage_over") == 1
    assert rig.sessions() == 1, "no connection besides that of the writer"


def test_connections_that_are_cut_all_the_time_cost_no_event(rig: Rig) -> None:
    rig.start_processor()
    producers = rig.send(2, 1500)
    with psycopg.connect(rig.stack.database_url, autocommit=True) as admin:
        while producers.poll() is None:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'event-processor'"
            )
    rig.wait_until_empty()

    report = rig.audit()
    assert report.holds, report.text()


def test_an_outage_of_the_queue_is_waited_out(rig: Rig) -> None:
    rig.start_processor()
    assert rig.send(3, 1000).wait(60) == 0
    wait_until(lambda: rows(rig) > 0, "some are stored")

    rig.stack.sqs.stop()
    wait_until(lambda: "queue" in rig.ready()[1], "the outage shows on /readyz")
    rig.stack.sqs.start()
    rig.wait_until_empty()

    report = rig.audit()
    assert report.holds, report.text()
    assert rig.processor is not None
    assert rig.processor.poll() is None


def test_a_stop_by_sigterm_settles_what_is_held_and_ends_with_zero(rig: Rig) -> None:
    processor = rig.start_processor()
    assert rig.send(4, 1000).wait(60) == 0
    wait_until(lambda: rows(rig) > 0, "some are stored")

    processor.send_signal(signal.SIGTERM)

    assert processor.wait(20) == 0
    assert rig.source().depth()["in_flight"] == 0
    report = rig.audit()
    assert report.holds, report.text()


def test_a_database_that_is_absent_at_the_start_is_waited_for(rig: Rig) -> None:
    rig.stack.postgres.stop()
    processor = rig.start_processor("--until-idle", "1")
    wait_until(lambda: "Connection refused" in rig.ready()[1], "/readyz says what is missing")

    rig.stack.postgres.start()

    assert processor.wait(30) == 0


def test_a_stop_while_waiting_for_an_absent_database_ends_at_once(rig: Rig) -> None:
    rig.stack.postgres.stop()
    processor = rig.start_processor()
    wait_until(lambda: rig.ready()[0] == 503, "it is waiting")

    processor.send_signal(signal.SIGINT)

    assert processor.wait(10) == UNFINISHED
    assert "told to stop while waiting for the database" in rig.log()


def test_pending_migrations_are_refused_with_the_command_to_run(rig: Rig, server_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", "run"],
        env=rig.environment() | {"DATABASE_URL": server_url},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run: processor migrate")


def test_several_processes_share_a_queue_and_a_fallen_one_is_replaced(rig: Rig) -> None:
    supervisor = rig.start_processor("--processes", "2")
    wait_until(lambda: rig.ready()[0] == 200, "the first is ready")
    wait_until(lambda: len(children(supervisor.pid)) == 2, "both run")
    fallen = children(supervisor.pid)[0]
    assert rig.send(5, 1000).wait(60) == 0

    os.kill(fallen, signal.SIGKILL)

    wait_until(
        lambda: len(children(supervisor.pid)) == 2 and fallen not in children(supervisor.pid),
        "it is replaced",
    )
    rig.wait_until_empty()
    # Told to stop before it has begun, a process ends with another code.
    wait_until(lambda: [rig.ready(place)[0] for place in range(2)] == [200, 200], "both have begun")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 0
    assert "process_fell" in rig.log()
    report = rig.audit()
    assert report.holds, report.text()


def test_a_supervisor_that_is_killed_takes_its_workers_with_it(rig: Rig) -> None:
    """At once: what is killed with -9 must not work on, and be met by whoever is started instead."""
    supervisor = rig.start_processor("--processes", "2")
    wait_until(lambda: rig.ready()[0] == 200, "the first is ready")
    wait_until(lambda: len(children(supervisor.pid)) == 2, "both run")
    orphans = children(supervisor.pid)
    assert rig.send(6, 1000).wait(60) == 0
    wait_until(lambda: rows(rig) > 0, "some are stored")

    rig.kill_processor()

    try:
        wait_until(lambda: not any(_runs(child) for child in orphans), "both have ended", wait_s=2)
    finally:
        for child in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    rig.start_processor()
    rig.wait_until_empty()
    report = rig.audit()
    assert report.holds, report.text()


def test_a_stop_while_the_registry_is_locked_ends_at_once_and_the_cause_shows(rig: Rig) -> None:
    with psycopg.connect(rig.stack.database_url) as holder:
        holder.execute("LOCK TABLE public_locks.registry_lock IN EXCLUSIVE MODE")
        processor = rig.start_processor()
        wait_until(lambda: "starting; the database" in rig.ready()[1], "/readyz says what is waited for")

        processor.send_signal(signal.SIGTERM)

        assert processor.wait(5) == UNFINISHED


def test_a_stop_while_the_database_answers_nothing_ends_at_once(rig: Rig) -> None:
    """A stop must not wait for an answer to what was asked before any work began."""
    with psycopg.connect(rig.stack.database_url) as holder:
        # What reads the table of migrations waits for this lock for ever.
        holder.execute("LOCK TABLE migration IN ACCESS EXCLUSIVE MODE")
        processor = rig.start_processor()
        wait_until(lambda: _waits_for_a_lock(holder), "it waits for an answer")

        processor.send_signal(signal.SIGTERM)

        assert processor.wait(5) == UNFINISHED


def test_a_queue_that_takes_connections_and_says_nothing_is_not_idle(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        processor = subprocess.Popen(
            [sys.executable, "-m", "processor", "run", "--until-idle", "1"],
            env=rig.environment()
            | {"AWS_ENDPOINT_URL": url, "SQS_QUEUE_URL": f"{url}/000000000000/events", "STOP_TIMEOUT_S": "4"},
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: rig.ready()[0] == 200, "it works")
            with pytest.raises(subprocess.TimeoutExpired):
                processor.wait(5)
            processor.send_signal(signal.SIGTERM)

            assert processor.wait(12) == UNFINISHED, "a stop is bounded, whatever the queue does"
        finally:
            processor.kill()
            processor.wait()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"SQS_QUEUE_URL": ""}, "SQS_QUEUE_URL is not set"),
        ({"DATABASE_URL": "mysql://root:hunter2@db/x"}, "DATABASE_URL: expected postgresql://"),
        ({"BATCH_SIZE_MAX": "many"}, "BATCH_SIZE_MAX: "),
        ({"SQS_QUEUE_URL": "events"}, "SQS_QUEUE_URL: expected a queue URL"),
    ],
)
def test_bad_settings_are_one_clear_line(
    rig_settings: dict[str, str], change: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", "run"],
        env=os.environ | rig_settings | change,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


@pytest.fixture
def rig_settings() -> dict[str, Any]:
    return {
        "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "SQS_QUEUE_URL": "http://127.0.0.1:1/000000000000/events",
        "HTTP_PORT": "0",
    }


def children(pid: int) -> list[int]:
    """The processes that a process started, as Linux tells."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def _runs(pid: int) -> bool:
    """Whether a process lives; one that has ended and that nobody asks after does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")


def _waits_for_a_lock(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return row is not None and row[0] > 0
