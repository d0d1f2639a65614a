"""Faults of PostgreSQL sessions: they end, hang, wait, and lose a COMMIT or its reply."""

import contextlib
import os
import signal

import psycopg

from tests.chaos.field import LOGIN, Field, ScenarioFailed
from tests.chaos.outages import a_scenario, outage, receiving_stops, works_again
from tests.chaos.traffic.tcp_proxy import CommitFault


def terminate_backends(field: Field) -> None:
    """Terminate one session of the fleet after the other, ten a second."""
    with field.admin() as admin:
        for _ in range(field.rounds):
            field.pause(0.1, 0.1)
            with field.fault():
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
                    " ORDER BY random() LIMIT 1",
                    [LOGIN],
                )
    works_again(field)


def kill_a_backend(field: Field) -> None:
    """Kill one session's process with -9: the postmaster then ends all, and recovers as from a crash."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            with field.admin() as admin:
                pids = admin.execute(
                    "SELECT pid FROM pg_stat_activity WHERE usename = %s", [LOGIN]
                ).fetchall()
            if not pids:
                raise ScenarioFailed("no session of the fleet is there to be killed")
            os.kill(field.chance.choice(pids)[0], signal.SIGKILL)
            field.wait_until(lambda: _answers(field), "PostgreSQL has recovered")
        works_again(field)


def _answers(field: Field) -> bool:
    try:
        with field.admin() as admin:
            admin.execute("SELECT")
    except psycopg.Error:
        return False
    return True


def _lose_commits(field: Field, fault: CommitFault) -> None:
    for _ in range(field.rounds):
        field.pause(0.05, 0.6)
        with field.fault():
            lost = field.database.commits_lost
            field.database.lose_commit(fault)
            field.wait_until(lambda lost=lost: field.database.commits_lost > lost, "a COMMIT was lost")  # type: ignore[misc]
    works_again(field)


def lose_commit_replies(field: Field) -> None:
    """Lose the answer to a COMMIT: it is done, and nobody on our side knows."""
    _lose_commits(field, "reply lost")
    known_again = sum(
        field.fleet.metric(member.place, 'processor_deliveries_total{outcome="redelivered",reason=""}')
        for member in field.fleet.members
    )
    if not known_again:
        raise ScenarioFailed("nothing was known as stored before, so no reply of a COMMIT can have been lost")


def lose_commit_requests(field: Field) -> None:
    """Lose a COMMIT on its way: the server rolls back, and it looks the same to us."""
    _lose_commits(field, "request lost")


def fall_silent(field: Field) -> None:
    """Let a network swallow all packets for longer than any time-out of ours."""
    for _ in range(field.rounds):
        outage(field, field.database.fall_silent, field.database.heal, "database", for_s=3)


def lock_the_table(field: Field) -> None:
    """Lock `message` as a careless person does, for thirty seconds."""
    with field.admin() as admin:
        for _ in range(field.rounds):
            with field.fault(), admin.transaction():
                admin.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
                receiving_stops(field, "55P03", for_s=25)
            works_again(field)


def exhaust_connections(field: Field) -> None:
    """Take every slot that is not a superuser's, and ours as well."""
    with field.admin() as admin:
        admin.execute("CREATE ROLE idler LOGIN")
        for _ in range(field.rounds):
            with contextlib.ExitStack() as idlers:
                outage(
                    field,
                    lambda: _take_all(field, admin, idlers),
                    idlers.close,
                    "remaining connection slots",
                    for_s=4,
                )
            field.pause(0.5, 1)


def _take_all(field: Field, admin: psycopg.Connection[object], idlers: contextlib.ExitStack) -> None:
    url = field.postgres.url(user="idler")

    def none_of_ours_is_left() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                idlers.enter_context(psycopg.connect(url))
        ours = admin.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s", [LOGIN]
        ).fetchone()
        return ours == (0,)

    field.wait_until(none_of_ours_is_left, "no slot is left to the fleet")


SCENARIOS = [
    a_scenario("sessions terminated, ten a second", terminate_backends, 200, 30),
    a_scenario("a session killed with -9", kill_a_backend, 6),
    a_scenario("the reply of COMMIT lost", lose_commit_replies, 30, 5),
    a_scenario("the request of COMMIT lost", lose_commit_requests, 30),
    a_scenario("the connection falls silent", fall_silent, 2),
    a_scenario("a table locked", lock_the_table, 1),
    a_scenario("connections exhausted", exhaust_connections, 4),
]
