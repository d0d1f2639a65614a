"""Tests that amounts in quotes count if a meter allows them: from then on, and older ones by a rebuild."""

import itertools
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result
from prometheus_client import REGISTRY

from processor.cli import cli
from processor.devstack.servers.sink import Receiver
from processor.errors import NotFound, SettingsError
from processor.operations import registry
from processor.usage import meters
from processor.usage.meters import Definition, allow_text_amounts
from processor.usage.rebuild import rebuild
from processor.usage.selection import TotalsSelection
from processor.usage.verify import verify
from tests.builders import a_delivery
from tests.fixtures.database import MakeSaver, Saver, count
from tests.fixtures.meters import a_pulse, a_void, add_meter, differences, totals
from tests.fixtures.usage import HandOver, assert_balanced, lines
from tests.fixtures.usage import a_pulse as a_past_pulse
from tests.operations.test_retention import run as remove_old
from tests.operations.test_retention_usage import pass_months

Db = psycopg.Connection[Any]
Processor = Callable[..., Result]


@pytest.fixture
def metered(db: Db) -> None:
    for event_type in ("pulse", "void"):
        registry.publish_schema(db, event_type, {})
    add_meter(db)


@pytest.fixture
def processor(database_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, words, env={"DATABASE_URL": database_url}, prog_name="processor")

    yield run
    structlog.reset_defaults()


def misses(db: Db) -> list[tuple[Any, ...]]:
    return db.execute("SELECT reason, messages FROM meter_miss ORDER BY reason").fetchall()


def holds(db: Db) -> bool:
    return verify(db).holds and not differences(db)


@pytest.mark.usefixtures("metered")
def test_a_number_in_quotes_counts_once_allowed(saver: Saver, db: Db) -> None:
    assert saver.outcomes(a_pulse('"2.5"')) == ["stored"]
    assert (totals(db), misses(db)) == ([], [("value_not_a_number", 1)])

    _, first = allow_text_amounts(db, "pulse", None)
    _, again = allow_text_amounts(db, "pulse", None)

    assert (first, again) == (True, False)
    assert holds(db)
    outcomes = saver.outcomes(
        a_pulse('"0.1"'), a_pulse('"2e-1"'), a_pulse(1), a_pulse('"one"'), a_pulse('"-1"'), a_pulse('"1e38"')
    )
    assert outcomes == ["stored"] * 4 + ["schema_violation"] * 2
    assert totals(db) == [("acme", "disk", Decimal("1.3"), 3)]
    assert misses(db) == [("value_not_a_number", 2)]
    assert holds(db)


@pytest.mark.usefixtures("metered")
def test_earlier_misses_are_counted_once_by_a_rebuild(saver: Saver, db: Db) -> None:
    saver.save(a_pulse('"2.5"'), a_pulse('"0.5"', "cpu"), a_pulse("1"), a_pulse('"one"'))
    everything = TotalsSelection(meter="pulse")
    # Earlier rebuilds of these windows did not count text amounts.
    assert rebuild(db, everything).totals == 0
    allow_text_amounts(db, "pulse", None)
    saver.save(a_pulse('"0.25"'))
    assert holds(db)

    first, again = rebuild(db, everything), rebuild(db, everything)

    assert (first.totals, again.totals) == (2, 0)
    assert totals(db) == [("acme", "cpu", Decimal("0.5"), 1), ("acme", "disk", Decimal("3.75"), 3)]
    assert holds(db)
    assert count(db, "usage_rebuild") == 1


@pytest.mark.usefixtures("metered")
def test_a_dry_run_covers_nothing(saver: Saver, db: Db) -> None:
    saver.save(a_pulse('"2.5"'))
    allow_text_amounts(db, "pulse", None)

    would = rebuild(db, TotalsSelection(meter="pulse"), dry_run=True)

    assert (would.totals, totals(db)) == (1, [])
    assert holds(db)


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("order", sorted(itertools.permutations(["allow", "rebuild", "void"])))
def test_a_void_subtracts_exactly_the_amount_of_its_message(
    make_saver: MakeSaver, db: Db, order: tuple[str, ...]
) -> None:
    saver = make_saver()
    saver.save(a_pulse('"2.5"', id="old"), a_pulse('"0.5"', id="other"), a_pulse(1))
    steps: dict[str, Callable[[], object]] = {
        "allow": lambda: allow_text_amounts(db, "pulse", None),
        "rebuild": lambda: rebuild(db, TotalsSelection(meter="pulse")),
        "void": lambda: saver.save(a_void("old")),
    }

    for step in order:
        steps[step]()
        assert holds(db), step

    rebuild(db, TotalsSelection(meter="pulse"))
    assert totals(db) == [("acme", "disk", Decimal("1.5"), 2)]
    assert holds(db)


@pytest.mark.usefixtures("metered")
@pytest.mark.parametrize("rebuilt", [False, True])
def test_counts_stay_after_retention_removed_their_messages(saver: Saver, db: Db, rebuilt: bool) -> None:
    saver.save(a_pulse('"2.5"'), a_pulse(1))
    allow_text_amounts(db, "pulse", None)
    if rebuilt:
        rebuild(db, TotalsSelection(meter="pulse"))
    before = totals(db)
    pass_months(db)

    remove_old(db)

    assert (count(db, "message"), totals(db)) == (0, before)
    assert differences(db) == []


@pytest.mark.usefixtures("pulses")
def test_a_count_after_the_handover_of_its_window_is_a_revision(
    saver: Saver, db: Db, hand_over: HandOver, receiver: Receiver
) -> None:
    saver.save(a_past_pulse("1"), a_past_pulse('"2.5"'))
    hand_over()
    allow_text_amounts(db, "pulse", None)
    saver.save(a_past_pulse('"0.25"'))
    hand_over()
    rebuild(db, TotalsSelection(meter="pulse"))
    hand_over()

    assert lines(db) == [
        ("disk", 1, Decimal(1), 1, True),
        ("disk", 2, Decimal("0.25"), 1, True),
        ("disk", 3, Decimal("2.5"), 1, True),
    ]
    assert_balanced(db, receiver)
    assert holds(db)


@pytest.mark.usefixtures("metered")
def test_text_amounts_cannot_be_disallowed_or_backdated(db: Db) -> None:
    for made_up in ("2020-01-01", "-infinity"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            db.execute("UPDATE meter SET text_amounts_from = %s", [made_up])
    allow_text_amounts(db, "pulse", None)

    for other in (None, "infinity", "-infinity"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            db.execute("UPDATE meter SET text_amounts_from = %s", [other])


def test_a_new_meter_with_text_amounts_counts_older_messages_by_a_rebuild(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    saver.save(a_pulse('"2.5"'))

    meters.add(db, Definition("texts", "pulse", value_pointer="/used_amount", text_amounts=True))
    saver.save(a_pulse('"0.5"'))
    rebuild(db, TotalsSelection(meter="texts"))

    assert [row[2:] for row in totals(db)] == [(Decimal("3.0"), 2)]
    assert holds(db)


def test_text_amounts_are_rejected_for_a_meter_without_amounts(db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    meters.add(db, Definition("counted", "pulse"))
    add_meter(db, "old")
    meters.retire(db, "old", None)

    with pytest.raises(SettingsError, match="adds no amounts"):
        allow_text_amounts(db, "counted", None)
    with pytest.raises(SettingsError, match="is retired"):
        allow_text_amounts(db, "old", None)
    with pytest.raises(NotFound, match="no meter"):
        allow_text_amounts(db, "nothing", None)
    with pytest.raises(SettingsError, match="--text-amounts with --count"):
        meters.add(db, Definition("c2", "pulse", text_amounts=True))


def test_the_commands_report_their_effect_and_the_next_step(
    processor: Processor, saver: Saver, db: Db
) -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": ["number", "string"], "pattern": "^[0-9.]+$"}},
    }
    registry.publish_schema(db, "loose", schema)
    add = ("meter", "add", "loose", "--event-type", "loose", "--sum", "/a", "--window", "day")

    plain = processor(*add)
    other = processor(*add, "--text-amounts")
    saver.save(a_delivery(event_type="loose", payload={"a": "2.5"}, sent_now=True))
    checked = processor("meter", "show", "loose")
    allowed = processor("meter", "text-amounts", "loose")
    again = processor("meter", "text-amounts", "loose")
    rebuilt = processor("usage", "rebuild", "--meter", "loose")
    shown = json.loads(processor("meter", "show", "loose", "--json").stdout)
    from_the_start = processor("meter", "add", "other", *add[3:], "--text-amounts")

    assert "need not be a number" in plain.stderr
    assert (other.exit_code, "processor meter text-amounts loose" in other.stderr) == (2, True)
    assert "processor meter text-amounts loose" in checked.stdout
    assert "meter loose counts amounts in quotes since 2" in allowed.stdout
    assert "processor usage rebuild --meter loose" in allowed.stdout
    assert "as before" in again.stdout
    assert rebuilt.exit_code == 0, rebuilt.output
    assert shown["text_amounts"] is True
    assert [row[2:] for row in totals(db)] == [(Decimal("2.5"), 1)]
    # The schema limits the strings by a pattern.
    assert (from_the_start.exit_code, from_the_start.stderr) == (0, "")


@pytest.mark.usefixtures("metered")
def test_the_metric_counts_what_meters_could_not_after_the_commit(saver: Saver, db: Db) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("processor_meter_misses_total") or 0.0

    add_meter(db, "second")
    before = counted()

    saver.save(a_pulse('"2.5"', id="m-1"), a_pulse(1, id="m-2"))
    saver.save(a_pulse('"2.5"', id="m-1"))

    assert counted() - before == 2
