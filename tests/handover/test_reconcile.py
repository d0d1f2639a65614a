"""After a restore nothing is handed over by itself; what the sink has is brought in, and sums are right."""

import json
import random
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sink import GOOD, Behaviour, Receiver
from processor.handover.lines import LineId
from processor.model import Delivery
from tests.fixtures.database import LogIn, Saver
from tests.fixtures.restores import BackUp, counts, written_by_sink
from tests.fixtures.usage import (
    Command,
    HandOver,
    a_pulse,
    a_void,
    assert_balanced,
    lines,
    sums_in_the_database,
)
from tests.rig import wait_until

Db = psycopg.Connection[Any]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "backup-and-restore.md"

pytestmark = pytest.mark.usefixtures("pulses")


def sent(receiver: Receiver) -> list[dict[str, Any]]:
    """The lines that the sink has, each once, numbers as texts."""
    found: dict[str, dict[str, Any]] = {}
    for request in receiver.requests:
        found |= {line["key"]: line for line in json.loads(request.body, parse_float=str)}
    return list(found.values())


def assert_sums_are_right(database_url: str, receiver: Receiver) -> None:
    with psycopg.connect(database_url) as db:
        assert receiver.books.changed == []
        here = {group: value for group, value in sums_in_the_database(db).items() if value}
        assert {group: value for group, value in receiver.books.sums().items() if value} == here


# ── the page ───────────────────────────────────────────────────────────────────────────────────────


def commands_of_the_page() -> list[list[str]]:
    section = PAGE.read_text(encoding="utf-8").split("\n## Restore to a moment T\n")[1]
    page = section.split("\n## ")[0]
    return [found.split() for found in re.findall(r"^ +processor ([a-z].*)$", page, re.MULTILINE)]


def test_whoever_follows_the_page_after_a_restore_has_the_right_sums(
    saver: Saver, database_url: str, receiver: Receiver, hand_over: HandOver, processor: Command,
    back_up: BackUp, tmp_path: Path,
) -> None:  # fmt: skip
    steps = commands_of_the_page()
    assert [words[:2] for words in steps] == [
        ["usage", "reconcile"], ["usage", "reconcile"], ["dispatch", "--once"], ["usage", "verify"],
    ]  # fmt: skip
    before, after = [a_pulse(3, message_id="p-1"), a_pulse(7, "cpu")], [
        a_pulse("0.5"), a_pulse(12), a_pulse(1, "gpu"), a_void("p-1"),
    ]  # fmt: skip
    saver.save(*before)
    hand_over()
    restore = back_up()
    saver.save(*after[:1])
    hand_over()
    saver.save(*after[1:])
    hand_over()

    restore()
    written_by_sink(receiver, tmp_path / "sink.jsonl")
    for words in steps[:2]:
        assert processor(*words).code == 0
    saver.save(*before, *after)
    for words in steps[2:]:
        assert processor(*words, USAGE_SINK_URL=receiver.url).code == 0

    assert receiver.books.sums() == {
        group: {"cpu": Decimal(7), "disk": Decimal("12.5"), "gpu": Decimal(1)}[group[1]]
        for group in receiver.books.sums()
    }
    assert_sums_are_right(database_url, receiver)


@pytest.mark.parametrize("sent_again", [0, 1, 2])
def test_what_comes_after_it_is_the_difference_alone(
    saver: Saver, database_url: str, receiver: Receiver, hand_over: HandOver, reconcile: Command,
    processor: Command, back_up: BackUp, sent_again: int,
) -> None:  # fmt: skip
    """Whether all, a part or nothing of what was lost is stored again."""
    hand_over()
    restore = back_up()
    lost = [a_pulse(12), a_pulse(3)]
    for pulse in lost:
        saver.save(pulse)
        hand_over()

    restore()
    assert counts(reconcile()) == {"missing_here": 2}
    saver.save(*lost[:sent_again])
    hand_over()
    hand_over()

    assert receiver.books.sums().popitem()[1] == [0, 12, 15][sent_again]
    assert_sums_are_right(database_url, receiver)
    assert processor("usage", "verify").code == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happened_before_and_after_the_sums_are_right(
    saver: Saver, database_url: str, receiver: Receiver, hand_over: HandOver, reconcile: Command,
    processor: Command, back_up: BackUp, seed: int,
) -> None:  # fmt: skip
    """Events, voids, closings and answers that never came, in any order, and restores in between."""
    chance = random.Random(seed)
    hand_over()
    restore = back_up()
    lost: list[Delivery] = []

    def save() -> None:
        sku = chance.choice(["disk", "cpu"])
        event = a_void(f"p-{chance.randrange(9)}") if chance.random() < 0.3 else a_pulse(
            f"{chance.randrange(99)}.5", sku, message_id=f"p-{chance.randrange(99)}"
        )  # fmt: skip
        lost.append(event)
        saver.save(event)

    def hand_over_unheard() -> None:
        receiver.behaviour = Behaviour(drops=True)
        hand_over()
        receiver.behaviour = GOOD

    def close() -> None:
        processor("usage", "close")

    def keep() -> None:
        nonlocal restore
        restore = back_up()
        lost.clear()

    def put_back() -> None:
        restore()
        if chance.random() < 0.5:
            close()
        again = [event for event in lost if chance.random() < 0.7]
        early = chance.randrange(len(again) + 1)
        saver.save(*again[:early])
        assert reconcile().code == 0
        saver.save(*again[early:])
        lost[:] = again

    steps: list[Callable[[], object]] = [save, hand_over, hand_over_unheard, close, keep]
    for _ in range(2):
        for step in chance.choices(steps, [8, 3, 2, 2, 1], k=20):
            step()
        put_back()
    hand_over()

    assert_sums_are_right(database_url, receiver)
    assert processor("usage", "verify").code == 0


# ── nothing by itself ──────────────────────────────────────────────────────────────────────────────


def test_a_restored_database_hands_nothing_over_until_somebody_has_looked(
    saver: Saver, receiver: Receiver, hand_over: HandOver, processor: Command, back_up: BackUp, tmp_path: Path
) -> None:
    saver.save(a_pulse(12))
    hand_over()
    restore = back_up()
    saver.save(a_pulse(3))
    restore()
    saver.save(a_pulse(15, "cpu"))

    said = processor("dispatch", "--once", USAGE_SINK_URL=receiver.url)
    to_file = processor("dispatch", "--to", tmp_path / "lines.jsonl")

    assert (said.code, to_file.code) == (4, 4)
    assert "processor usage reconcile" in said.error
    assert not (tmp_path / "lines.jsonl").exists()
    assert len(receiver.requests) == 1

    assert processor("usage", "reconcile", "--nothing-lost").code == 0
    assert processor("dispatch", "--once", USAGE_SINK_URL=receiver.url).code == 0
    assert len(receiver.requests) == 2


def test_a_dispatcher_that_runs_stops_at_a_restore_and_goes_on_once_it_is_reconciled(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    """Tables that are restored below an open connection."""
    saver.save(a_pulse(12))
    hand_over()
    db.execute("UPDATE usage_place SET place = 'elsewhere'")
    saver.save(a_pulse(3))

    with pytest.raises(Exception, match="another place"):
        hand_over()

    assert len(receiver.requests) == 1
    assert counts(reconcile()) == {"known": 1}
    hand_over()
    assert_balanced(db, receiver)


# ── what is found ──────────────────────────────────────────────────────────────────────────────────


def test_it_is_safe_to_repeat_and_a_dry_run_changes_nothing(
    saver: Saver, db: Db, database_url: str, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12), a_pulse(1, "cpu"))
    hand_over()
    db.execute("DELETE FROM usage_line WHERE value = 12")
    before = lines(db)

    tried = reconcile("--dry-run")

    assert (tried.code, counts(tried), tried.json["place"]) == (0, {"known": 1, "missing_here": 1}, None)
    assert lines(db) == before
    assert counts(reconcile()) == {"known": 1, "missing_here": 1}
    assert counts(reconcile()) == {"known": 2}
    hand_over()
    assert_balanced(db, receiver)
    assert len(receiver.requests) == 1


def test_a_line_that_waits_here_and_is_there_is_marked(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    hand_over()
    db.execute("UPDATE usage_line SET handed_over_at = NULL")
    db.execute("UPDATE usage_batch SET handed_over_at = NULL")

    assert counts(reconcile()) == {"not_marked": 1}

    hand_over()
    assert len(receiver.requests) == 1
    assert_balanced(db, receiver)


def test_where_amounts_differ_the_sink_is_right_and_the_difference_is_handed_over(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command, processor: Command
) -> None:
    """As keys of an older release may: a line that was written anew, under the key of another amount."""
    saver.save(a_pulse(12))
    hand_over()
    saver.save(a_pulse(3))
    db.execute("UPDATE usage_line SET value = 15, messages = 2, total_value = 15, total_messages = 2")
    db.execute("UPDATE total SET is_closed = true")

    assert counts(reconcile()) == {"other_amount": 1}
    hand_over()

    assert receiver.books.sums().popitem()[1] == 15
    assert_balanced(db, receiver)
    assert processor("usage", "verify").code == 0


def test_lines_that_the_sink_lacks_need_a_decision(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12), a_pulse(1, "cpu"))
    hand_over()
    [kept] = [line for line in sent(receiver) if line["product_sku"] == "cpu"]
    db.execute("UPDATE usage_place SET place = 'elsewhere'")

    undecided = reconcile(lines=[kept])

    assert (undecided.code, undecided.json["open"], undecided.json["place"]) == (3, ["missing_there"], None)
    assert db.execute("SELECT place FROM usage_place").fetchall() == [("elsewhere",)]
    assert reconcile("--partial", lines=[kept]).code == 0
    assert all(handed_over for *_, handed_over in lines(db))
    assert reconcile("--send-again", lines=[kept]).code == 0
    hand_over()
    assert [len(json.loads(request.body)) for request in receiver.requests] == [2, 1]
    assert receiver.books.doubled == 1
    assert_balanced(db, receiver)


def test_lines_of_nobody_here_need_a_decision(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    hand_over()
    [line] = sent(receiver)
    strangers = [
        line | {"key": "1" * 64, "tenant_id": "gone"},
        {name: line[name] for name in ("tenant_id", "window_start", "revision", "messages")}
        | {"key": "2" * 64, "meter": "gone", "group": {}, "value": "1"},
    ]

    undecided = reconcile(lines=[line, *strangers])

    assert (undecided.code, undecided.json["open"]) == (3, ["of_nobody"])
    assert reconcile("--leave-unknown", lines=[line, *strangers]).code == 0
    assert len(lines(db)) == 1


def test_a_key_that_stands_for_another_window_is_never_taken_over(
    saver: Saver, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    hand_over()
    [line] = sent(receiver)

    answer = reconcile(
        "--partial", "--leave-unknown", "--send-again", lines=[line | {"product_sku": "another"}]
    )

    assert (answer.code, answer.json["open"]) == (3, ["key_of_another"])


def test_lines_of_a_meter_with_groups_of_any_text_are_brought_in(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    db.execute("UPDATE meter SET status = 'retired'")
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers,"
        " is_handed_over) VALUES ('by_unit', 'pulse', 'sum', '/used_amount', '{unit,sku}',"
        " '{/use_unity,/product_sku}', true)"
    )
    saver.save(a_pulse("0.10", 'a "ü" \\ \u2028 {x}', "\t"), a_pulse("1e-20", "", "é"))
    hand_over()
    db.execute("DELETE FROM usage_line")

    assert counts(reconcile()) == {"missing_here": 2}

    hand_over()
    assert len(receiver.requests) == 1
    assert db.execute("SELECT count(*) FROM usage WHERE state = 'handed_over'").fetchone() == (2,)


def test_a_line_of_an_older_release_keeps_its_key_and_is_found_by_it(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    hand_over(usage_sink_url="http://127.0.0.1:9/")
    db.execute("UPDATE usage_line SET line_key = NULL, batch_id = NULL")
    hand_over()

    [line] = sent(receiver)
    row = db.execute(
        "SELECT tenant_id, meter_id, window_start, group_key, revision FROM usage_line"
    ).fetchone()
    assert row is not None
    assert line["key"] == LineId(*row).key("pulse")
    assert counts(reconcile()) == {"known": 1}
    assert db.execute("SELECT line_key FROM usage_line").fetchall() == [(line["key"],)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "line 1 is no line of usage; expected JSON"),
        ("\n7", "line 2 is no line of usage; expected an object"),
        ('[{"key": "x"}]', "line 1 is no line"),
        ('{"used_amount": 1, "product_sku": null, "use_unity": "GB"}', "the values of its group as texts"),
    ],
)
def test_a_file_that_has_other_things_is_refused(
    processor: Command, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "sink.jsonl").write_text(text)

    answer = processor("usage", "reconcile", tmp_path / "sink.jsonl")

    assert answer.code == 2
    assert words in answer.error


@pytest.mark.parametrize("words", [[], ["FILE", "--nothing-lost"], ["missing.jsonl"]])
def test_it_takes_a_file_or_a_word(processor: Command, words: list[str]) -> None:
    assert processor("usage", "reconcile", *words).code == 2


def test_a_key_with_two_contents_in_the_file_is_refused(
    saver: Saver, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    hand_over()
    [line] = sent(receiver)

    answer = reconcile(lines=[line, line, line | {"used_amount": "13"}])

    assert answer.code == 2
    assert "stands for two contents" in answer.error


def test_it_waits_for_nobody_who_sends(
    saver: Saver, receiver: Receiver, hand_over: HandOver, reconcile: Command
) -> None:
    saver.save(a_pulse(12))
    receiver.behaviour = Behaviour(wait_s=2)
    sending = threading.Thread(target=hand_over, daemon=True)
    sending.start()
    wait_until(lambda: len(receiver.requests) == 1, "a dispatcher is sending")

    answer = reconcile()

    assert answer.code == 1
    assert "end it first" in answer.error
    sending.join(10)


def test_a_login_of_the_biller_may_say_where_it_is_and_changes_no_amount(
    saver: Saver, db: Db, receiver: Receiver, hand_over: HandOver, processor: Command, log_in: LogIn,
    tmp_path: Path,
) -> None:  # fmt: skip
    saver.save(a_pulse(12))
    hand_over()
    db.execute("DELETE FROM usage_line")
    url = log_in("processor_biller")
    file = written_by_sink(receiver, tmp_path / "sink.jsonl")

    refused = processor("usage", "reconcile", file, DATABASE_URL=url)
    noted = processor("usage", "reconcile", "--nothing-lost", DATABASE_URL=url)
    owner = processor("usage", "reconcile", file)

    assert refused.code == 1
    assert (
        "the role of DATABASE_URL may not do this (permission denied for table usage_line)" in refused.error
    )
    assert (noted.code, noted.error) == (0, "")
    assert (owner.code, owner.error) == (0, "")
    assert "1 line(s) that only the sink had" in owner.out
