"""What happens to PostgreSQL: sessions and servers that end, freeze, refuse, fill up, or become others.

An outage is the same to see from outside, whatever its cause: every process says 503 and why, nothing more
is received, what is held stays hidden from others, and all of it ends by itself.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from processor import registry
from processor.devstack.postgres import EmbeddedPostgres
from tests.faults import servers
from tests.faults.field import DATABASE, LOGIN, SETTINGS, Field, ScenarioFailed
from tests.faults.run import Scenario
from tests.faults.tcp_proxy import CommitFault, TcpProxy

_CHECKOUT = Path(__file__).resolve().parents[3]

_POLL_S = float(SETTINGS["RECEIVE_WAIT_S"]) + 0.5
"""When every poll has ended that was under way as the outage was noticed."""

_RECEIVES_MAX = 3
"""Of one message, where no process ends: one, and what a machine out of breath lets slip."""

_RECEIVES_BEFORE_DLQ = 10
"""The fewest that the runbook allows for."""


# ── what must be visible ──────────────────────────────────────────────────────────────────────────────


def _all_say(field: Field, *words: str) -> bool:
    """Say whether every process is unready, each for one of these causes."""
    answers = [field.fleet.ready(member.place) for member in field.fleet.members]
    return all(status == 503 and any(word in body for word in words) for status, body in answers)


def _all_ready(field: Field) -> bool:
    return all(field.fleet.ready(member.place)[0] == 200 for member in field.fleet.members)


def _receiving_stops(field: Field, *words: str, for_s: float, within_s: float = 15) -> None:
    """Demand that every process says 503 with one of these words, and receives nothing from then on."""
    field.wait_until(
        lambda: _all_say(field, *words), f"/readyz of all says 503 and why ({words})", wait_s=within_s
    )
    field.pause(_POLL_S, _POLL_S)
    before = field.queue.minutes.handed_over.total()
    field.pause(for_s, for_s)
    more = field.queue.minutes.handed_over.total() - before
    if more:
        raise ScenarioFailed(f"{more} messages were received while the database was away")
    if not _all_say(field, *words):
        raise ScenarioFailed(f"/readyz does not say {words} any more, and the outage is not over")


def _works_again(field: Field) -> None:
    """Demand that every process is ready, and that one message was not received again and again."""
    field.wait_until(lambda: _all_ready(field), "/readyz of all says 200 again", wait_s=20)
    delivery_id, receives = max(field.queue.minutes.handed_over.items(), key=lambda pair: pair[1])
    if receives > _RECEIVES_MAX:
        raise ScenarioFailed(f"{delivery_id} was received {receives} times; the outage was to burn none")


def _outage(
    field: Field, begin: Callable[[], None], end: Callable[[], None], *words: str, for_s: float
) -> None:
    """Make one outage, see that it is noticed and that nothing is received, and end it."""
    with field.fault():
        try:
            begin()
            _receiving_stops(field, *words, for_s=for_s)
        finally:
            end()
    _works_again(field)


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────


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
    _works_again(field)


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
        _works_again(field)


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
    _works_again(field)


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
        _outage(field, field.database.fall_silent, field.database.heal, "database", for_s=3)


def lock_the_table(field: Field) -> None:
    """Lock `message` as a careless person does, for thirty seconds."""
    with field.admin() as admin:
        for _ in range(field.rounds):
            with field.fault(), admin.transaction():
                admin.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
                _receiving_stops(field, "55P03", for_s=25)
            _works_again(field)


def exhaust_connections(field: Field) -> None:
    """Take every slot that is not a superuser's, and ours as well."""
    with field.admin() as admin:
        admin.execute("CREATE ROLE idler LOGIN")
        for _ in range(field.rounds):
            with contextlib.ExitStack() as idlers:
                _outage(
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


# ── the server ────────────────────────────────────────────────────────────────────────────────────────


def restart_fast(field: Field) -> None:
    """Stop and start the server as an upgrade does: every session is told to go."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            field.postgres.stop()
            field.postgres.start()
        _works_again(field)


def restart_immediate(field: Field) -> None:
    """Stop the server at once, without a checkpoint; it starts with crash recovery."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            servers.stop_immediately(field.postgres)
            field.postgres.start()
        _works_again(field)


def cut_power(field: Field) -> None:
    """Kill every process of the server at once, and start it again."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            servers.cut_power(field.postgres)
            field.postgres.start()
        _works_again(field)


def be_down_briefly(field: Field) -> None:
    """Have no server for a few seconds."""
    for _ in range(field.rounds):
        field.pause(0.5, 1)
        _be_down(field, for_s=2)


def be_down_for_two_minutes(field: Field) -> None:
    """Have no server for so long that everything held would have come again many times over."""
    for _ in range(field.rounds):
        _be_down(field, for_s=118)


def _be_down(field: Field, *, for_s: float) -> None:
    _outage(field, field.postgres.stop, field.postgres.start, "can't be reached", for_s=for_s)


def freeze(field: Field) -> None:
    """Stop all processes of the server where they stand, for longer than any time-out of ours."""
    for _ in range(field.rounds):
        with contextlib.ExitStack() as thaw:
            _outage(
                field,
                lambda: thaw.enter_context(servers.frozen(field.postgres)),
                thaw.close,
                "database",
                for_s=3,
            )


def be_read_only(field: Field) -> None:
    """Let the server refuse to write, as one that was failed over from."""
    for _ in range(field.rounds):
        _outage(
            field,
            lambda: _set(field, "default_transaction_read_only", "on"),
            lambda: _set(field, "default_transaction_read_only", "off"),
            "25006",
            for_s=2,
        )
        field.pause(0.5, 1)


def _set(field: Field, name: str, value: str) -> None:
    with field.admin() as admin:
        # A session takes the new default with its next statement, this one included.
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        admin.execute("SELECT pg_reload_conf()")


def promote_a_standby(field: Field) -> None:
    """Cut the power of the primary for good; its synchronous standby, read-only at first, takes its place."""
    for place in range(field.rounds):
        field.pause(0.5, 1.5)
        standby = field.cleanup.enter_context(
            servers.synchronous_standby(field.postgres, field.folder / f"standby-{place}")
        )
        field.pause(1, 3)
        with field.fault():
            servers.cut_power(field.postgres)
            _move_to(field, standby)
        _works_again(field)


def promote_a_standby_left_behind(field: Field) -> None:
    """Cut the standby off, so that commits wait for it; end the sessions that wait; then lose the primary.

    A commit whose wait is ended that way can be read on the primary, and is not on the standby: what comes
    again then looks stored, and must not leave the queue before the standby has it.
    """
    between = TcpProxy(field.postgres.port)
    field.cleanup.callback(between.close)
    standby = field.cleanup.enter_context(
        servers.synchronous_standby(field.postgres, field.folder / "standby", port=between.port)
    )
    field.pause(1, 2)
    with field.fault():
        between.fall_silent()
        with field.admin() as admin:
            for _ in range(field.rounds):
                field.wait_until(lambda: _waits_for_standby(admin), "a commit waits for the standby")
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [LOGIN]
                )
            field.pause(2, 2)
        servers.cut_power(field.postgres)
        _move_to(field, standby)
    _works_again(field)


def _waits_for_standby(admin: psycopg.Connection[object]) -> bool:
    waiting = admin.execute(
        "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep'", [LOGIN]
    )
    return waiting.fetchone() is not None


def _move_to(field: Field, standby: EmbeddedPostgres) -> None:
    """Point everybody to a standby, and promote it; the old primary stays gone."""
    # At the very end alone, because only its start clears away the shared memory that it left.
    field.cleanup.callback(field.postgres.stop)
    field.cleanup.callback(field.postgres.start)
    field.recovery.database_url = standby.url(DATABASE)
    field.postgres, field.database.target_port = standby, standby.port
    _receiving_stops(field, "25006", for_s=1)
    with field.admin() as admin:
        # No one follows the new primary, so nobody must be waited for.
        admin.execute("SELECT pg_promote()")
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")


# ── room and rights ───────────────────────────────────────────────────────────────────────────────────


def fill_the_disk(field: Field) -> None:
    """Fill the disk on which the tables lie, and make room again."""
    disk = field.cleanup.enter_context(servers.small_disk(48))
    with field.admin() as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        for table in ("message", "duplicate", "rejection"):
            admin.execute(f"ALTER TABLE {table} SET TABLESPACE small")
    for _ in range(field.rounds):
        with contextlib.ExitStack() as full:
            _outage(
                field,
                lambda: full.enter_context(servers.filled(disk)),
                full.close,
                "53100",
                for_s=3,
            )
        field.pause(0.5, 1)


def fill_the_wal_disk(field: Field) -> None:
    """Fill the disk of the WAL: the server panics, and can't recover before there is room."""
    disk = field.cleanup.enter_context(servers.small_disk(112))
    field.postgres.stop()
    servers.move_wal(field.postgres, disk)
    field.postgres.start()
    for _ in range(field.rounds):
        field.pause(0.5, 1)
        with field.fault():
            with servers.filled(disk):
                _use_up_wal(field)
                _receiving_stops(field, "database", for_s=2)
            servers.await_end(field.postgres)
            field.postgres.start()
        _works_again(field)


def _use_up_wal(field: Field) -> None:
    def gone() -> bool:
        try:
            with field.admin() as admin:
                admin.execute("SELECT pg_switch_wal()")
        except psycopg.Error:
            return field.postgres.exit_code() is not None
        return False

    field.wait_until(gone, "the server can't go on without room for its WAL")


def take_a_right_away(field: Field) -> None:
    """Take INSERT on `message` away: processes stop and shout, and go on when it is given back."""
    for _ in range(field.rounds):
        field.pause(0.5, 1)
        with field.fault(), field.admin() as admin, _revoked(admin):
            seen = len(field.fleet.falls)
            field.wait_until(
                lambda seen=seen: (
                    {place for place, _ in field.fleet.falls[seen:]}  # type: ignore[misc]
                    == {member.place for member in field.fleet.members}
                ),
                "every process has stopped by itself",
            )
            if "42501" not in field.fleet.log.read_text():
                raise ScenarioFailed("no log names the right that is missing: 42501")
            before = field.queue.minutes.handed_over.total()
            field.pause(3, 4)
            if more := field.queue.minutes.handed_over.total() - before:
                raise ScenarioFailed(f"{more} messages were received by processes that can't save them")
        field.wait_until(lambda: _all_ready(field), "/readyz of all says 200 again")


def migrate_under_load(field: Field) -> None:
    """Migrate as the runbook says: `processor migrate` of a newer version, while the old one runs."""
    newer = field.folder / "newer"
    for part in ("processor", "sql"):
        shutil.copytree(_CHECKOUT / part, newer / part)
    for place in range(field.rounds):
        field.pause(1, 2)
        number = 9000 + place
        (newer / "sql" / "migrations" / f"{number}_chaos.sql").write_text(_a_migration(number))
        with field.fault():
            said = _command(field, newer, "migrate")
            if f"{number}_chaos" not in said:
                raise ScenarioFailed(f"`processor migrate` did not apply {number}: {said}")
            # Old code starts again beside the newer tables, as at a roll-back.
            field.fleet.kill(field.chance.randrange(2))
        field.wait_until(lambda: _all_ready(field), "/readyz of all says 200 again")
    if "database_newer_than_code" not in field.fleet.log.read_text():
        raise ScenarioFailed("no process that was started after a migration has noticed it")


def _command(field: Field, code: Path, *words: str) -> str:
    """Run a command of the processor as the owner; gives what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", *words],
        cwd=code,
        env=dict(os.environ) | {"PYTHONPATH": str(code), "DATABASE_URL": field.postgres.url(DATABASE)},
        capture_output=True,
        text=True,
        check=False,
    )
    # 1: done, and some of what was replayed is rejected again, for another reason.
    if done.returncode not in (0, 1):
        raise ScenarioFailed(f"`processor {' '.join(words)}` failed: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _a_migration(number: int) -> str:
    return f"""-- Chaos, which needs a column and an index.
ALTER TABLE message ADD COLUMN note_{number} text NOT NULL DEFAULT 'none';
COMMENT ON COLUMN message.note_{number} IS 'Of no use.';
CREATE INDEX message_chaos_{number} ON message (event_type, stored_at);
"""


def change_the_registry(field: Field) -> None:
    """Change what verdicts are made with, ten times a second, one tenant's right to send among it."""
    with field.admin() as admin:
        schemas = admin.execute(
            "SELECT event_type, definition FROM event_schema WHERE tenant_id IS NULL"
        ).fetchall()
        for place in range(field.rounds):
            field.pause(0.05, 0.15)
            with field.fault():
                match place % 4:
                    case 0:
                        registry.add_tenant(admin, f"newcomer-{place}")
                    case 1:
                        registry.publish_schema(admin, *field.chance.choice(schemas))
                    case _:
                        registry.set_tenant_status(admin, "hooli", ("suspended", "active")[place % 2])
        registry.set_tenant_status(admin, "hooli", "active")
        seen = admin.execute("SELECT count(*) FROM rejection WHERE reason = 'tenant_suspended'").fetchone()
    if seen == (0,):
        raise ScenarioFailed("no event came while its tenant was suspended")
    # What it sent meanwhile was rejected, rightly, and is put right as the runbook says.
    _command(field, _CHECKOUT, "rejection", "replay", "--reason", "tenant_suspended")
    _works_again(field)


@contextlib.contextmanager
def _revoked(admin: psycopg.Connection[object]) -> Iterator[None]:
    admin.execute("REVOKE INSERT ON message FROM processor_writer")
    try:
        yield
    finally:
        admin.execute("GRANT INSERT ON message TO processor_writer")


def _scenario(
    name: str, work: Callable[[Field], None], rounds: int, rounds_short: int = 0, **more: object
) -> Scenario:
    return Scenario(
        name,
        "postgresql",
        work,
        rounds=rounds,
        rounds_short=rounds_short,
        max_receive_count=_RECEIVES_BEFORE_DLQ,
        **more,  # type: ignore[arg-type]
    )


SCENARIOS = [
    _scenario("sessions terminated, ten a second", terminate_backends, 200, 30),
    _scenario("a session killed with -9", kill_a_backend, 6),
    _scenario("the reply of COMMIT lost", lose_commit_replies, 30, 5),
    _scenario("the request of COMMIT lost", lose_commit_requests, 30),
    _scenario("the connection falls silent", fall_silent, 2),
    _scenario("a table locked", lock_the_table, 1),
    _scenario("connections exhausted", exhaust_connections, 4),
    _scenario("restart, fast", restart_fast, 8),
    _scenario("restart, immediate", restart_immediate, 8, 1),
    _scenario("power cut", cut_power, 8),
    _scenario("down for seconds", be_down_briefly, 5, 1),
    _scenario("down for two minutes", be_down_for_two_minutes, 1, rate=60),
    _scenario("frozen", freeze, 2),
    _scenario("read-only and back", be_read_only, 6),
    _scenario("a synchronous standby promoted", promote_a_standby, 2, 1),
    _scenario("a standby left behind, and promoted", promote_a_standby_left_behind, 3),
    _scenario("the disk full", fill_the_disk, 4, needs=servers.no_small_disk),
    _scenario("the WAL's disk full", fill_the_wal_disk, 2, needs=servers.no_small_disk),
    _scenario("a migration under load", migrate_under_load, 5),
    _scenario("the registry changed under load", change_the_registry, 120),
    _scenario("a right taken away", take_a_right_away, 3, exits=frozenset({1})),
]
