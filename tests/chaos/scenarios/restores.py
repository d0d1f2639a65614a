"""Hand-over of usage while the database is restored to an earlier moment, or failed over."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg

from tests.chaos import servers
from tests.chaos.field import BILLING_LOGIN, DATABASE, LOGIN, Field, ScenarioFailed
from tests.chaos.fleet import Fleet
from tests.chaos.hand_over import HandOver, hand_over
from tests.chaos.run import Scenario
from tests.chaos.scenarios.servers import move_to
from tests.chaos.scenarios.usage import takes_more
from tests.chaos.traffic.tcp_proxy import TcpProxy

_NOTHING_FOR_S = 1.5
"""Many rounds of a dispatcher: time enough for one that would hand over."""


def restore_to_a_moment(field: Field) -> None:
    """Restore the database to a moment after which much was handed over, while dispatchers run.

    The processors are frozen from that moment on, so that no event is lost with it: of those, others tell.
    """

    def work(here: HandOver) -> None:
        for _ in range(field.rounds):
            field.pause(0.5, 1.5)
            with field.fault():
                # So that lines wait at that moment, which are handed over after it.
                here.way.refuse()
                field.pause(1, 1.5)
                _signal_all(field.fleet, signal.SIGSTOP)
                _copy_database(field, "backup")
                more = takes_more(here.sink)
                here.way.heal()
                field.wait_until(more, "lines are handed over")
                field.pause(0.5, 1)
                _put_back(field, "backup")
                _hands_nothing_over(field, here)
                _reconcile(field, here, _file_of(field, here))
                _signal_all(field.fleet, signal.SIGCONT)

    hand_over(field, work)


def promote_a_standby(field: Field) -> None:
    """Leave a synchronous standby behind, end the dispatchers' sessions that wait for it, and promote it.

    What the sink has by then must be on the standby, under its keys.
    """
    between = TcpProxy(field.postgres.port)
    field.cleanup.callback(between.close)
    standby = field.cleanup.enter_context(
        servers.synchronous_standby(field.postgres, field.folder / "standby", port=between.port)
    )

    def work(here: HandOver) -> None:
        _start_with_large_batches(here)
        with field.fault():
            # Only the dispatchers are to wait for the standby, with all of their steps before them.
            _signal_all(here.dispatchers, signal.SIGSTOP)
            field.pause(1, 2)
            _signal_all(field.fleet, signal.SIGSTOP)
            field.wait_until(lambda: _idle(field), "no save is under way")
            between.fall_silent()
            _signal_all(here.dispatchers, signal.SIGCONT)
            with field.admin() as admin:
                for _ in range(field.rounds):
                    field.wait_until(lambda: _waits_for_standby(admin), "a dispatcher waits for the standby")
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
                        [BILLING_LOGIN],
                    )
                    field.pause(0.5, 1)
            _signal_all(field.fleet, signal.SIGCONT)
            servers.cut_power(field.postgres)
            move_to(field, standby)
            _hands_nothing_over(field, here)
            _has_all_lines_of(field, here)
            _reconcile(field, here, "--nothing-lost")

    hand_over(field, work)


def _start_with_large_batches(here: HandOver) -> None:
    """Let each step be done after one commit, so that ending a few sessions leads through all of them."""
    here.dispatchers.own = {
        member.place: {"USAGE_SINK_LINES_MAX": "10000"} for member in here.dispatchers.members
    }
    for member in here.dispatchers.members:
        here.dispatchers.kill(member.place)


def _signal_all(fleet: Fleet, number: signal.Signals) -> None:
    for member in fleet.members:
        fleet.signal(member.place, number)


def _idle(field: Field) -> bool:
    with field.admin() as admin:
        busy = admin.execute("SELECT FROM pg_stat_activity WHERE usename = %s AND state = 'active'", [LOGIN])
        return busy.fetchone() is None


def _copy_database(field: Field, name: str) -> None:
    """Copy the database as it is at one moment: nobody is connected to it meanwhile."""
    with _nobody_connected(field) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")


def _put_back(field: Field, name: str) -> None:
    with _nobody_connected(field) as admin:
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        admin.execute(f"ALTER DATABASE {name} RENAME TO {DATABASE}")


@contextlib.contextmanager
def _nobody_connected(field: Field) -> Iterator[psycopg.Connection[object]]:
    field.database.refuse()
    with field.admin("postgres") as admin:
        admin.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        try:
            field.wait_until(lambda: _end_sessions(admin), "nobody is connected to the database")
            yield admin
        finally:
            admin.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")
            field.database.heal()


def _end_sessions(admin: psycopg.Connection[object]) -> bool:
    ended = admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [DATABASE]
    )
    return ended.rowcount == 0


def _hands_nothing_over(field: Field, here: HandOver) -> None:
    """Demand that every dispatcher says why, and that the sink hears nothing more."""

    def all_wait() -> bool:
        answers = [here.dispatchers.ready(member.place) for member in here.dispatchers.members]
        return all(status == 503 and "processor usage reconcile" in body for status, body in answers)

    field.wait_until(all_wait, "the dispatchers wait for somebody to reconcile")
    seen = len(here.sink.requests)
    field.pause(_NOTHING_FOR_S, _NOTHING_FOR_S)
    if len(here.sink.requests) > seen:
        raise ScenarioFailed("lines were handed over from another place before anybody had reconciled")


def _file_of(field: Field, here: HandOver) -> str:
    file = field.folder / "sink.jsonl"
    file.write_text("\n".join(json.dumps(line, default=str) for line in here.sink.books.lines.values()))
    return str(file)


def _reconcile(field: Field, here: HandOver, word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processor", "usage", "reconcile", word],
        # It writes what the sink has into our lines, which is the owner's.
        env={**here.dispatchers.environment, "DATABASE_URL": field.postgres.url(DATABASE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise ScenarioFailed(f"usage reconcile ended with {done.returncode}: {done.stdout}{done.stderr}")


def _has_all_lines_of(field: Field, here: HandOver) -> None:
    with field.admin() as admin:
        known = {key for (key,) in admin.execute("SELECT line_key FROM usage_line")}
    missing = here.sink.books.lines.keys() - known
    if missing:
        raise ScenarioFailed(f"the sink has {len(missing)} lines that the standby does not know")


def _waits_for_standby(admin: psycopg.Connection[object]) -> bool:
    waiting = admin.execute(
        "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep'", [BILLING_LOGIN]
    )
    return waiting.fetchone() is not None


SCENARIOS = [
    Scenario(
        "restored to a moment, with dispatchers running", "usage", restore_to_a_moment, 4, 1, processes=2
    ),
    Scenario(
        "a standby left behind by dispatchers, and promoted", "usage", promote_a_standby, 6, processes=2
    ),
]
