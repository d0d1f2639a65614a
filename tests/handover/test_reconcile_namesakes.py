"""What was billed to a tenant or a meter that is gone is not taken back from another one by its name."""

import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.database.queries import sql_folder
from processor.devstack.servers.binaries import find_binaries, server_account
from processor.devstack.servers.sink import Receiver
from processor.operations import registry
from tests.fixtures.database import Saver
from tests.fixtures.meters import add_meter
from tests.fixtures.restores import BackUp, counts, written_by_sink
from tests.fixtures.usage import Command, HandOver, a_pulse, an_hour_ago, assert_balanced, lines

Db = psycopg.Connection[Any]
Replace = Callable[[Db, str], None]

pytestmark = pytest.mark.usefixtures("pulses")


def erase(db: Db, database_url: str) -> None:
    registry.set_tenant_status(db, "acme", "suspended")
    psql = find_binaries(server_account()) / "psql"
    script = sql_folder() / "erase_tenant.sql"
    subprocess.run([psql, "-X", "-v", "tenant=acme", "-f", script, database_url], check=True, timeout=60)


def erase_and_add_again(db: Db, database_url: str) -> None:
    erase(db, database_url)
    registry.add_tenant(db, "acme")


def erase_lines_of_an_older_release(db: Db, database_url: str) -> None:
    db.execute("UPDATE usage_line SET line_key = NULL")
    erase_and_add_again(db, database_url)


def delete_the_meter_and_add_it_again(db: Db, _database_url: str) -> None:
    for table in ("usage_line", "total", "meter"):
        db.execute(f"DELETE FROM {table}".encode())
    add_meter(db, is_handed_over=True)


def sum_at_the_sink(receiver: Receiver) -> Decimal:
    assert receiver.books.changed == []
    return sum(receiver.books.sums().values(), Decimal(0))


@pytest.mark.parametrize(
    "replace", [erase_and_add_again, erase_lines_of_an_older_release, delete_the_meter_and_add_it_again]
)
def test_what_was_billed_to_an_earlier_namesake_is_taken_back_by_nobody_unasked(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver, reconcile: Command,
    processor: Command, replace: Replace,
) -> None:  # fmt: skip
    saver.save(a_pulse(25))
    hand_over()
    replace(db, database_url)
    saver.save(a_pulse(35))
    hand_over()
    before = lines(db)

    asked = reconcile()

    assert (asked.code, asked.json["open"]) == (3, ["of_earlier_life"])
    assert [row["value"] for row in asked.json["differences"]] == ["-25"]
    assert lines(db) == before

    for _ in range(2):
        left = reconcile("--leave-earlier")
        assert (left.code, left.json["differences"]) == (0, [])
        assert counts(left) == {"known": 1, "of_earlier_life": 1}
        hand_over()
    assert sum_at_the_sink(receiver) == 60
    assert lines(db) == before
    assert processor("usage", "verify").code == 0


def test_whoever_says_that_it_is_the_same_one_has_it_brought_in(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command, back_up: BackUp
) -> None:
    """As a tenant that was added after the moment of the backup, and again after the restore."""
    db.execute("DELETE FROM tenant WHERE tenant_id = 'acme'")
    hand_over()
    restore = back_up()
    registry.add_tenant(db, "acme")
    saver.save(a_pulse(25))
    hand_over()
    url = db.info.dsn

    restore()

    with psycopg.connect(url, autocommit=True) as restored:
        registry.add_tenant(restored, "acme")
        assert reconcile().json["open"] == ["of_earlier_life"]
        assert counts(reconcile("--bring-in-earlier")) == {"missing_here": 1}
        saver.save(a_pulse(25))
        hand_over()
        assert sum_at_the_sink(receiver) == 25
        assert_balanced(restored, receiver)


def test_what_a_tenant_used_since_it_is_back_is_brought_in_without_a_question(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(25))
    hand_over()
    erase_and_add_again(db, database_url)
    [line] = json.loads(receiver.requests[0].body)
    now = an_hour_ago(0).isoformat()

    answer = reconcile(lines=[line, line | {"key": "1" * 64, "window_start": now}])

    assert counts(answer) == {"of_earlier_life": 1, "missing_here": 1}


def test_nothing_is_known_of_what_was_handed_over_before_the_first_note(
    saver: Saver, db: Db, hand_over: HandOver, reconcile: Command
) -> None:
    """As in a database that was made anew, and after such a one was reconciled."""
    saver.save(a_pulse(25))
    hand_over()
    for table in ("usage_line", "usage_place"):
        db.execute(f"DELETE FROM {table}".encode())

    for _ in range(2):
        assert reconcile().json["open"] == ["of_earlier_life"]
        assert reconcile("--leave-earlier").code == 0


def test_a_dry_run_says_in_words_what_would_be_taken_back(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver, processor: Command,
    tmp_path: Path,
) -> None:  # fmt: skip
    saver.save(a_pulse(25), a_pulse(7, "cpu"))
    hand_over()
    db.execute("DELETE FROM usage_line")
    db.execute("DELETE FROM total WHERE value = 25")
    db.execute("UPDATE total SET value = 9")
    file = written_by_sink(receiver, tmp_path / "sink.jsonl")

    tried = processor("usage", "reconcile", file, "--dry-run")
    erase_and_add_again(db, database_url)
    asked = processor("usage", "reconcile", file, "--dry-run")

    assert tried.code == 0
    assert "would send 2 difference(s) to what the sink has, 1 of them negative" in tried.out
    taken, added = [line for line in tried.out.splitlines() if line.endswith(("value=-25", "value=2"))]
    assert "disk" in taken
    assert "cpu" in added
    assert asked.code == 3
    assert "2 of them negative" in asked.out
    assert "--leave-earlier" in asked.error


def test_one_answer_is_given_at_a_time(processor: Command) -> None:
    answer = processor("usage", "reconcile", "-", "--leave-earlier", "--bring-in-earlier")

    assert answer.code == 2
