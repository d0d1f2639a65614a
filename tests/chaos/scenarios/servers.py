"""Faults of PostgreSQL servers: stops, freezes, refused connections, full disks, and failovers."""

import contextlib

import psycopg

from processor.devstack.servers.postgres import EmbeddedPostgres
from tests.chaos import servers
from tests.chaos.field import DATABASE, LOGIN, Field
from tests.chaos.outages import a_scenario, outage, receiving_stops, works_again
from tests.chaos.traffic.tcp_proxy import TcpProxy

# ── the server ────────────────────────────────────────────────────────────────────────────────────────


def restart_fast(field: Field) -> None:
    """Stop and start the server as an upgrade does: every session is told to go."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            field.postgres.stop()
            field.postgres.start()
        works_again(field)


def restart_immediate(field: Field) -> None:
    """Stop the server at once, without a checkpoint; it starts with crash recovery."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            servers.stop_immediately(field.postgres)
            field.postgres.start()
        works_again(field)


def cut_power(field: Field) -> None:
    """Kill every process of the server at once, and start it again."""
    for _ in range(field.rounds):
        field.pause(0.5, 2)
        with field.fault():
            servers.cut_power(field.postgres)
            field.postgres.start()
        works_again(field)


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
    outage(field, field.postgres.stop, field.postgres.start, "can't be reached", for_s=for_s)


def freeze(field: Field) -> None:
    """Stop all processes of the server where they stand, for longer than any time-out of ours."""
    for _ in range(field.rounds):
        with contextlib.ExitStack() as thaw:
            outage(
                field,
                lambda: thaw.enter_context(servers.frozen(field.postgres)),
                thaw.close,
                "database",
                for_s=3,
            )


def be_read_only(field: Field) -> None:
    """Let the server refuse to write, as one that was failed over from."""
    for _ in range(field.rounds):
        outage(
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
            move_to(field, standby)
        works_again(field)


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
        move_to(field, standby)
    works_again(field)


def _waits_for_standby(admin: psycopg.Connection[object]) -> bool:
    waiting = admin.execute(
        "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep'", [LOGIN]
    )
    return waiting.fetchone() is not None


def move_to(field: Field, standby: EmbeddedPostgres) -> None:
    """Point everybody to a standby, and promote it; the old primary stays gone."""
    # At the very end alone, because only its start clears away the shared memory that it left.
    field.cleanup.callback(field.postgres.stop)
    field.cleanup.callback(field.postgres.start)
    field.recovery.database_url = standby.url(DATABASE)
    field.postgres, field.database.target_port = standby, standby.port
    receiving_stops(field, "25006", for_s=1)
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
            outage(
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
                receiving_stops(field, "database", for_s=2)
            servers.await_end(field.postgres)
            field.postgres.start()
        works_again(field)


def _use_up_wal(field: Field) -> None:
    def gone() -> bool:
        try:
            with field.admin() as admin:
                admin.execute("SELECT pg_switch_wal()")
        except psycopg.Error:
            return field.postgres.exit_code() is not None
        return False

    field.wait_until(gone, "the server can't go on without room for its WAL")


SCENARIOS = [
    a_scenario("restart, fast", restart_fast, 8),
    a_scenario("restart, immediate", restart_immediate, 8, 1),
    a_scenario("power cut", cut_power, 8),
    a_scenario("down for seconds", be_down_briefly, 5, 1),
    a_scenario("down for two minutes", be_down_for_two_minutes, 1, rate=60),
    a_scenario("frozen", freeze, 2),
    a_scenario("read-only and back", be_read_only, 6),
    a_scenario("a synchronous standby promoted", promote_a_standby, 2, 1),
    a_scenario("a standby left behind, and promoted", promote_a_standby_left_behind, 3),
    a_scenario("the disk full", fill_the_disk, 4, needs=servers.no_small_disk),
    a_scenario("the WAL's disk full", fill_the_wal_disk, 2, needs=servers.no_small_disk),
]
