"""Usage is asked for as table, CSV and JSON, to the last digit; what makes no sense is said in words."""

import csv
import io
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.cli.test_cli import FAILED, FINE, PROBLEM_FOUND, USAGE, Command, run
from tests.fixtures.database import LogIn, Saver
from tests.usage.test_metering import a_pulse, metered

__all__ = ["metered", "run"]

Db = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("metered")

EVIL = '=1+1,"x"\n\x1b[31m'


@pytest.fixture
def counted(saver: Saver, db: Db, metered: None) -> None:
    """Three pulses in two windows of acme, one of globex, and a meter without windows beside one with."""
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, window_size, past_limit)"
        " VALUES ('ever', 'pulse', 'count', 'none', NULL)"
    )
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers,"
        " past_limit) VALUES ('old', 'pulse', 'sum', '/used_amount', '{state}', '{/product_sku}', NULL)"
    )
    for amount, hour, tenant in (
        ("0.1", 10, "acme"),
        ("0.20", 10, "acme"),
        (7, 11, "acme"),
        (5, 10, "globex"),
    ):
        saver.save(a_pulse(amount, occurred_at=f"2026-01-05T{hour}:30:00+01:00", tenant_id=tenant))


@pytest.mark.usefixtures("counted")
def test_json_is_an_array_of_the_contracts_keys_in_order(run: Command) -> None:
    rows = run("usage", "query", "--meter", "old", "--json").json

    assert rows[0] == {
        "tenant_id": "acme",
        "meter": "old",
        "window_start": "2026-01-05T09:00:00Z",
        "group": {"state": "disk"},
        "value": "0.30",
        "messages": 2,
        "revision": 0,
        "state": "closing",
    }
    assert [(row["tenant_id"], row["window_start"], row["value"]) for row in rows[1:]] == [
        ("acme", "2026-01-05T10:00:00Z", "7"),
        ("globex", "2026-01-05T09:00:00Z", "5"),
    ]
    [ever, other] = run("usage", "query", "--meter", "ever", "--json").json
    assert (ever["window_start"], ever["group"], ever["value"], ever["state"]) == (None, {}, "3", "open")
    assert other["tenant_id"] == "globex"


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("counted", "in_tokyo")
@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--tenant", "globex"], ["5"]),
        (["--until", "2026-01-05T10:00:00"], ["0.30", "5"]),
        (["--from", "2026-01-05T11:00:00+01:00", "--until", "2026-01-06"], ["7"]),
        (["--group", "state=disk", "--tenant", "acme"], ["0.30", "7"]),
        (["--group", "state=cpu"], []),
        (["--limit", "1"], ["0.30"]),
    ],
)
def test_totals_are_chosen_by_tenant_window_group_and_number(
    run: Command, options: list[str], values: list[str]
) -> None:
    answer = run("usage", "query", "--meter", "old", "--json", *options)

    assert [row["value"] for row in answer.json] == values
    assert ("there are more than these 1 rows" in answer.error) == ("--limit" in options)


@pytest.mark.usefixtures("counted")
def test_meters_without_windows_are_in_no_time_range(run: Command) -> None:
    rows = run("usage", "query", "--from", "1960-01-01", "--json").json

    assert {row["meter"] for row in rows} == {"old"}
    assert {row["meter"] for row in run("usage", "query", "--json").json} == {"old", "ever"}


def test_a_tenants_text_is_quoted_in_csv_and_harmless_in_a_table(run: Command, saver: Saver) -> None:
    saver.save(a_pulse("1e2", EVIL))

    table = run("usage", "query")
    [headings, cells] = csv.reader(io.StringIO(run("usage", "query", "--csv").out))

    [row] = run("usage", "query", "--json").json
    assert list(row["group"]) == ["product_sku", "use_unity"]
    assert headings[:5] == ["tenant_id", "meter", "window_start", "product_sku", "use_unity"]
    assert headings[5:] == ["value", "messages", "revision", "state"]
    assert (cells[3], cells[4], cells[5]) == (EVIL, "GB", "100")
    assert "\x1b" not in table.out
    assert "product_sku" in table.out


@pytest.mark.usefixtures("counted")
def test_a_table_has_columns_for_the_groups_that_are_in_it_alone(run: Command) -> None:
    table = run("usage", "query").out.splitlines()[0].split()
    rows = run("usage", "query", "--csv").out.splitlines()[0].split(",")

    assert set(rows) - set(table) == {"product_sku", "use_unity"}, "nothing was new enough for that meter"
    assert "group.state" in table


@pytest.mark.usefixtures("counted")
def test_a_group_that_is_called_as_a_column_keeps_apart(run: Command) -> None:
    headings = run("usage", "query", "--meter", "old", "--csv").out.splitlines()[0]

    assert headings == "tenant_id,meter,window_start,group.state,value,messages,revision,state"


@pytest.mark.parametrize("command", ["query", "verify", "rebuild"])
def test_the_first_and_the_last_moment_are_taken_as_bounds(run: Command, command: str) -> None:
    first, last = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"

    assert run("usage", command, "--meter", "pulse", "--from", first, "--until", last).code == FINE


def test_where_nothing_was_counted_it_is_said(run: Command) -> None:
    assert "no totals; `processor meter list`" in run("usage", "query").out
    assert run("usage", "query", "--json").json == []
    assert run("usage", "query", "--csv").out.count("\n") == 1


@pytest.mark.parametrize("command", ["query", "verify", "rebuild"])
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--meter", "nix"], FAILED, "no meter 'nix'; `processor meter list`"),
        (["--meter", "pulse", "--tenant", "nix"], FAILED, "no tenant 'nix'; `processor tenant list`"),
        (["--meter", "pulse", "--from", "soon"], USAGE, "'soon' is no time; expected such as 2026-11-22"),
        (
            ["--meter", "pulse", "--from", "2026-02-01", "--until", "2026-01-01"],
            USAGE,
            "to be earlier than --until",
        ),
    ],
)
def test_what_makes_no_sense_is_said(
    run: Command, command: str, options: list[str], code: int, said: str
) -> None:
    answer = run("usage", command, *options)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--group", "sku"], "expected NAME=VALUE"),
        (
            ["--group", "sku=1"],
            "no meter that is asked for groups by 'sku'; they group by product_sku, use_unity",
        ),
        (["--csv", "--json"], "expected --csv or --json, not both"),
    ],
)
def test_what_makes_no_sense_in_a_query_is_said(run: Command, options: list[str], said: str) -> None:
    answer = run("usage", "query", *options)

    assert (answer.code, said in answer.error) == (USAGE, True)


def test_a_reader_may_verify_and_a_biller_may_rebuild(
    run: Command, saver: Saver, db: Db, log_in: LogIn
) -> None:
    saver.save(a_pulse("0.1"))
    db.execute("UPDATE total SET value = 9")
    reader, biller = log_in("processor_reader"), log_in("processor_biller")

    assert run("usage", "verify", url=reader).code == PROBLEM_FOUND
    refused = run("usage", "rebuild", "--meter", "pulse", url=reader)
    assert (refused.code, "may not do this" in refused.error) == (FAILED, True), refused.error
    assert run("usage", "rebuild", "--meter", "pulse", url=biller).code == FINE
    assert run("usage", "verify", url=biller).code == FINE
    assert run("usage", "query", "--json", url=reader).json[0]["value"] == "0.1"


def test_verify_and_rebuild_say_what_differs_and_mend_it(run: Command, saver: Saver, db: Db) -> None:
    saver.save(a_pulse("0.1"), a_pulse("0.2", "cpu"))
    assert "the totals hold" in run("usage", "verify").out
    db.execute("UPDATE total SET value = 9 WHERE group_key LIKE '%cpu%'")

    found = run("usage", "verify")
    planned = run("usage", "rebuild", "--meter", "pulse", "--dry-run")
    mended = run("usage", "rebuild", "--meter", "pulse", "--json")

    assert found.code == PROBLEM_FOUND
    assert "expected=0.2  found=9  expected_messages=1  found_messages=1" in found.out
    assert "THE TOTALS DO NOT HOLD" in found.out
    assert "meter pulse: 1 totals would be changed" in planned.out
    assert mended.json["differences"][0]["value"] == "-8.8"
    again = run("usage", "verify", "--json")
    assert (again.code, again.json["holds"], again.json["totals"]) == (FINE, True, 2)
    assert run("usage", "rebuild", "--meter", "pulse").out.startswith("meter pulse: 0 totals changed\n")
