"""Meters are added, shown and retired; whatever is wrong with one is said in words, and nothing is added."""

import json
from typing import Any

import psycopg
import pytest

from processor.operations import registry
from tests.builders import a_delivery
from tests.cli.test_cli import FAILED, FINE, USAGE, Command, run
from tests.fixtures.database import Saver, count

__all__ = ["run"]

Db = psycopg.Connection[Any]

PULSE: dict[str, Any] = {
    "type": "object",
    "properties": {"used_amount": {"type": "number"}, "product_sku": {"type": "string"}},
    "required": ["used_amount", "product_sku"],
}
ADD = ("meter", "add", "pulse", "--event-type", "pulse")
SUM = (*ADD, "--sum", "/used_amount", "--by", "product_sku=/product_sku")


@pytest.fixture(autouse=True)
def pulses(db: Db) -> None:
    registry.publish_schema(db, "pulse", PULSE)


def test_a_meter_is_added_once_listed_shown_and_retired(run: Command) -> None:
    added = run(*SUM, "--hand-over")
    again = run(*SUM, "--hand-over")

    assert (added.code, added.error) == (FINE, "")
    assert (
        "meter pulse added: the sum of /used_amount in pulse messages of every tenant, by hour" in added.out
    )
    assert "it counts what is stored from 20" in added.out
    assert "processor usage rebuild --meter pulse\n" in added.out
    assert again.code == FINE
    assert "is there already, the very same" in again.out

    [row] = run("meter", "list", "--json").json
    assert (row["meter"], row["tenant_id"], row["past_limit_s"], row["misses"]) == (
        "pulse",
        None,
        92 * 86400,
        0,
    )
    assert "used_amount" in run("meter", "list").out
    shown = run("meter", "show", "pulse")
    assert "by product_sku (/product_sku)" in shown.out
    assert "past_limit         92d" in shown.out
    assert "misses: none" in shown.out

    assert "meter pulse is retired" in run("meter", "retire", "pulse").out
    assert "was retired before" in run("meter", "retire", "pulse").out
    assert run("meter", "show", "pulse", "--json").json["status"] == "retired"
    refused = run(*SUM, "--hand-over")
    assert (refused.code, "choose another name" in refused.error) == (USAGE, True)


def test_limits_and_windows_are_as_they_are_given(run: Command) -> None:
    options = ("--window", "day", "--grace", "2h", "--past-limit", "none", "--future-limit", "90s")
    run(*ADD, "--count", "--tenant", "acme", "--allow-corrections", *options)

    row = run("meter", "show", "pulse", "--json").json

    assert (row["aggregation"], row["window_size"], row["tenant_id"]) == ("count", "day", "acme")
    assert (row["grace_s"], row["past_limit_s"], row["future_limit_s"]) == (7200, None, 90)
    assert row["allows_corrections"] is True


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["x", "--event-type", "nix", "--count"], FAILED, "processor schema publish nix FILE"),
        (["x", "--event-type", "pulse", "--count", "--tenant", "nix"], FAILED, "processor tenant add nix"),
        (["x", "--event-type", "pulse"], USAGE, "either --sum POINTER or --count"),
        (["x", "--event-type", "pulse", "--sum", "/a", "--count"], USAGE, "either --sum POINTER or --count"),
        (["x", "--event-type", "pulse", "--sum", "used_amount"], USAGE, "is no JSON pointer"),
        (["x", "--event-type", "pulse", "--sum", "/a~2"], USAGE, "is no JSON pointer"),
        (["x", "--event-type", "pulse", "--sum", "/a/-1"], USAGE, "is no JSON pointer"),
        (["x", "--event-type", "pulse", "--sum", "/a/01"], USAGE, "is no JSON pointer"),
        (["x", "--event-type", "pulse", "--sum", "/" + "a" * 256], USAGE, "256 characters"),
        (["X Y", "--event-type", "pulse", "--count"], USAGE, "'X Y' is no name for a meter"),
        (["x" * 64, "--event-type", "pulse", "--count"], USAGE, "is no name for a meter"),
        (["x", "--event-type", "pulse", "--count", "--by", "sku"], USAGE, "expected NAME=POINTER"),
        (["x", "--event-type", "pulse", "--count", "--by", "s=/a", "--by", "s=/b"], USAGE, "2 times"),
        (["x", "--event-type", "pulse", "--count", "--by", "9=/a"], USAGE, "no name for a group"),
        (["x", "--event-type", "pulse", "--count", "--by", "value=/a"], USAGE, "of this name already"),
        (["x", "--event-type", "pulse", "--count", *(w for n in "abcde" for w in ("--by", f"{n}=/{n}"))],
         USAGE, "5 groups; expected 4"),
        (["x", "--event-type", "pulse", "--count", "--window", "none", "--hand-over"], USAGE, "never closes"),
        (["x", "--event-type", "pulse", "--count", "--window", "week"], USAGE, "'week' is not one of"),
        (["x", "--event-type", "pulse", "--count", "--grace", "soon"], USAGE, "is no length of time"),
        (["x", "--event-type", "pulse", "--count", "--grace", "93d"], USAGE, "expected 0 to 92 days"),
        (["x", "--event-type", "pulse", "--count", "--past-limit", "99999999d"], USAGE, "0 to 3660 days"),
        (["x", "--event-type", "pulse", "--count", "--future-limit", "3661d"], USAGE, "0 to 3660 days"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_refused_in_words(
    run: Command, db: Db, words: list[str], code: int, said: str
) -> None:
    answer = run("meter", "add", *words)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.error
    assert "psycopg" not in answer.error
    assert count(db, "meter") == 0


def test_another_definition_under_the_same_name_is_refused_with_the_difference(run: Command) -> None:
    run(*SUM)

    answer = run(*SUM, "--window", "day")

    assert answer.code == USAGE
    assert "another meter 'pulse' is there already (window_size: hour there, day here)" in answer.error


@pytest.mark.parametrize(("first", "second"), [([], ["--tenant", "acme"]), (["--tenant", "acme"], [])])
def test_a_name_is_either_shared_or_tenants_own(run: Command, first: list[str], second: list[str]) -> None:
    assert run(*ADD, "--count", *first).code == FINE

    answer = run(*ADD, "--count", *second)

    assert answer.code == USAGE
    assert "the name 'pulse' is taken" in answer.error


def test_two_tenants_may_have_meters_by_one_name_and_are_then_asked_which(run: Command) -> None:
    for tenant in ("acme", "globex"):
        assert run(*ADD, "--count", "--tenant", tenant).code == FINE

    answer = run("meter", "retire", "pulse")

    assert (answer.code, "say which by --tenant" in answer.error) == (USAGE, True)
    assert run("meter", "retire", "pulse", "--tenant", "globex").code == FINE
    assert [row["status"] for row in run("meter", "list", "--json").json] == ["active", "retired"]


@pytest.mark.parametrize("text", ["\0", "\ud800"])
@pytest.mark.parametrize("option", ["--event-type", "--tenant"])
def test_text_that_no_database_holds_is_refused_in_words(
    run: Command, db: Db, option: str, text: str
) -> None:
    answer = run("meter", "add", "x", "--event-type", "pulse", "--count", option, text)

    assert (answer.code, "expected UTF-8, and no" in answer.error) == (USAGE, True)
    assert count(db, "meter") == 0


@pytest.mark.parametrize("command", ["show", "retire"])
def test_a_meter_that_is_not_there_is_said(run: Command, command: str) -> None:
    answer = run("meter", command, "nix", "--tenant", "acme")

    assert answer.code == FAILED
    assert "no meter 'nix' that counts for tenant 'acme'; `processor meter list`" in answer.error


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"required": ["product_sku"]}, "/used_amount may be missing"),
        ({"properties": PULSE["properties"] | {"used_amount": {}}}, "/used_amount need not be a number"),
        (
            {"properties": PULSE["properties"] | {"product_sku": {"type": ["string", "null"]}}},
            "/product_sku need not",
        ),
        ({"type": ["object", "null"]}, "the payload need not be an object"),
    ],
)
def test_a_schema_that_lets_pass_what_can_not_be_counted_is_named(
    run: Command, db: Db, change: dict[str, Any], why: str
) -> None:
    registry.publish_schema(db, "pulse", PULSE | change, "acme")

    answer = run(*SUM)

    assert answer.code == FINE
    assert f"by schema pulse version 1 (tenant acme) {why}" in answer.error
    assert "(shared)" not in answer.error
    assert "processor schema publish pulse FILE --tenant acme" in answer.error


def test_the_schemas_in_force_are_looked_at_and_no_others(run: Command, db: Db) -> None:
    registry.publish_schema(db, "pulse", {"type": "object"})
    registry.publish_schema(db, "pulse", PULSE, "acme")
    registry.publish_schema(db, "pulse", {"type": "object"}, "globex")
    registry.publish_schema(db, "pulse", PULSE, "globex")

    shared, own = run(*SUM), run("meter", "add", "own", *SUM[3:], "--tenant", "acme")

    assert "by schema pulse version 2 (shared) /used_amount may be missing" in shared.error
    assert "globex" not in shared.error
    assert own.error == ""


def test_what_a_schema_says_by_reference_or_by_enum_is_understood(run: Command, db: Db) -> None:
    properties = {"used_amount": {"$ref": "#/$defs/amount"}, "product_sku": {"enum": ["disk", "cpu"]}}
    definition = PULSE | {"properties": properties, "$defs": {"amount": {"type": "integer"}}}
    registry.publish_schema(db, "pulse", definition)

    assert run(*SUM).error == ""


def test_misses_are_shown_with_the_schema_that_should_forbid_them(run: Command, saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {"type": "object"}, "acme")
    run(*SUM)
    for n in range(2):
        payload = {"product_sku": "disk"}
        saver.save(a_delivery(event_type="pulse", id=f"bad-{n}", payload=payload, sent_now=True))
    old = {"product_sku": "disk", "used_amount": 1}
    saver.save(a_delivery(event_type="pulse", id="old", payload=old, occurred_at="2020-01-01T00:00:00Z"))

    shown = run("meter", "show", "pulse")

    assert "misses: 3 messages are stored and not counted" in shown.out
    assert "value_missing               2   tenant acme" in shown.out
    assert "such as bad-1" in shown.out
    assert (
        "schema pulse version 1 (tenant acme) let it pass; the next version should require /used_amount"
        in shown.out
    )
    assert "processor schema publish pulse FILE --tenant acme" in shown.out
    assert "the past limit (92d)" in shown.out
    misses = run("meter", "show", "pulse", "--json").json["misses"]
    assert [(miss["reason"], miss["messages"]) for miss in misses] == [("value_missing", 2), ("too_old", 1)]
    assert "misses: none" in run("meter", "show", "pulse", "--tenant", "globex").out
    assert [row["misses"] for row in run("meter", "list", "--json").json] == [3]
    assert json.dumps(misses).count("bad-1") == 1


@pytest.mark.parametrize(
    "column",
    [
        "group_names = '{a,a}'",
        "group_names = '{value,b}'",
        "group_names = '{\"a,b\",c}'",
        "group_names = '{A,b}'",
    ],
)
def test_the_table_itself_refuses_groups_that_a_line_could_not_name(db: Db, column: str) -> None:
    names = column.partition(" = ")[2]

    with pytest.raises(psycopg.errors.CheckViolation, match="meter_group_names"):
        db.execute(
            "INSERT INTO meter (meter, event_type, aggregation, group_names, group_pointers)"
            f" VALUES ('x', 'pulse', 'count', {names}, '{{/a,/b}}')"
        )
