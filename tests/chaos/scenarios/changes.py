"""Changes in PostgreSQL during operation: tables, the registry, and privileges."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg

from processor.operations import registry
from tests.chaos.field import DATABASE, Field, ScenarioFailed
from tests.chaos.outages import a_scenario, all_ready, works_again

CHECKOUT = Path(__file__).resolve().parents[3]


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
        field.wait_until(lambda: all_ready(field), "/readyz of all says 200 again")


def migrate_under_load(field: Field) -> None:
    """Run `processor migrate` of a newer version while the old one runs, as the page on upgrades says."""
    newer = field.folder / "newer"
    for part in ("processor", "sql"):
        shutil.copytree(CHECKOUT / part, newer / part)
    for place in range(field.rounds):
        field.pause(1, 2)
        number = 9000 + place
        (newer / "sql" / "migrations" / f"{number}_chaos.sql").write_text(_a_migration(number))
        with field.fault():
            said = command(field, newer, "migrate")
            if f"{number}_chaos" not in said:
                raise ScenarioFailed(f"`processor migrate` did not apply {number}: {said}")
            # Old code starts again beside the newer tables, as at a roll-back.
            field.fleet.kill(field.chance.randrange(2))
        field.wait_until(lambda: all_ready(field), "/readyz of all says 200 again")
    if "database_newer_than_code" not in field.fleet.log.read_text():
        raise ScenarioFailed("no process that was started after a migration has noticed it")


def command(field: Field, code: Path, *words: str) -> str:
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
    # What it sent meanwhile was rejected, rightly, and is put right as docs/howto/rejections.md says.
    command(field, CHECKOUT, "rejection", "replay", "--reason", "tenant_suspended")
    works_again(field)


@contextlib.contextmanager
def _revoked(admin: psycopg.Connection[object]) -> Iterator[None]:
    admin.execute("REVOKE INSERT ON message FROM processor_writer")
    try:
        yield
    finally:
        admin.execute("GRANT INSERT ON message TO processor_writer")


SCENARIOS = [
    a_scenario("a migration under load", migrate_under_load, 5),
    a_scenario("the registry changed under load", change_the_registry, 120),
    a_scenario("a right taken away", take_a_right_away, 3, exits=frozenset({1})),
]
