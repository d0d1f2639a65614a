"""The counter's parts are made by one command, used where they are there, and each tenant has its own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.devstack.seed import samples, seed
from processor.operations import registry
from tests.builders import a_delivery
from tests.fixtures.database import MakeSaver, count

Db = psycopg.Connection[Any]
Processor = Callable[..., Result]


@pytest.fixture
def processor(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(cli, words, env={"DATABASE_URL": database_url}, prog_name="processor")

    yield run
    structlog.reset_defaults()


def an_event(tenant_id: str, event_type: str = "created", number: int = 1, **payload: Any) -> Any:
    body = {"id": str(number), "tenant_id": tenant_id, "event_type": event_type, "payload": payload}
    return a_delivery(json.dumps(body).encode(), sent_now=True)


def made(db: Db) -> list[int]:
    return [count(db, table) for table in ("tenant", "event_type", "event_schema", "meter")]


def test_it_makes_what_is_missing_once_and_what_comes_then_is_counted(
    processor: Processor, make_saver: MakeSaver, db: Db, tmp_path: Path
) -> None:
    first = processor("counter", "setup", "--tenant", "new one")
    after = made(db)
    again = processor("counter", "setup", "--tenant", "new one")

    assert (first.exit_code, first.stderr, again.exit_code) == (0, "", 0)
    assert made(db) == after
    assert "nothing; all of it is there" in again.stdout
    assert "--tenant 'new one'" in first.stdout
    saver = make_saver()
    outcomes = saver.outcomes(
        an_event("new one", user_id="ada"),
        an_event("new one", user_id="bob", comment="more than is asked for"),
        an_event("new one", user_id=7),
        an_event("new one", user_id=""),
        an_event("acme", user_id="ada"),
    )
    assert outcomes == ["stored", "stored", "stored", "schema_violation", "unknown_event_type"]
    processor("count", "--to", tmp_path / "counts", "--tenant", "new one")
    assert json.loads((tmp_path / "counts/created.json").read_text()) == {"7": 1, "ada": 1, "bob": 1}
    assert sorted(path.stem for path in (tmp_path / "counts").iterdir()) == ["created", "deleted", "updated"]


def test_other_types_by_whatever_name_are_added_to_what_is_there(processor: Processor, db: Db) -> None:
    processor("counter", "setup", "--tenant", "acme")

    more = processor(
        "counter", "setup", "--tenant", "acme", "--types", "created, User Created ,.é,.ü,田,Created"
    )

    assert more.exit_code == 0, more.output
    assert " created-by-user" not in more.stdout
    rows = db.execute("SELECT event_type FROM meter WHERE tenant_id = 'acme' ORDER BY event_type").fetchall()
    assert [name for (name,) in rows] == [
        *(".é", ".ü", "Created", "User Created", "created", "deleted", "updated", "田")
    ]
    assert processor("counter", "setup", "--tenant", "acme", "--types", " , ").exit_code == 2


def test_what_holds_for_the_tenant_already_is_used(processor: Processor, database_url: str, db: Db) -> None:
    seed(database_url)
    before = made(db)

    done = processor("counter", "setup", "--tenant", "acme")

    assert (done.exit_code, done.stderr) == (0, "")
    assert made(db) == before


def test_shared_parts_are_for_every_tenant_and_own_ones_for_one(
    processor: Processor, make_saver: MakeSaver
) -> None:
    processor("counter", "setup", "--tenant", "acme", "--types", "created")
    processor("counter", "setup", "--tenant", "acme", "--types", "seen", "--shared")

    assert make_saver().outcomes(
        an_event("acme", user_id="a"),
        an_event("globex", user_id="a"),
        an_event("globex", "seen", user_id="a"),
    ) == ["stored", "unknown_event_type", "stored"]


def test_what_is_shared_is_not_put_beside_what_a_tenant_has_of_its_own(
    processor: Processor, db: Db, tmp_path: Path
) -> None:
    """Or its messages would be counted by two, and no run could tell which to go by."""
    processor("counter", "setup", "--tenant", "acme", "--types", "created")
    before = made(db)

    for tenant in ("acme", "globex"):
        refused = processor("counter", "setup", "--tenant", tenant, "--types", "created", "--shared")
        assert refused.exit_code == 2
        assert "processor meter retire created-by-user --tenant acme" in refused.stderr
    assert made(db) == before

    processor("counter", "setup", "--tenant", "acme", "--types", "seen", "--shared")
    processor("counter", "setup", "--tenant", "globex", "--types", "seen,created")
    for tenant in ("acme", "globex"):
        counted = processor("count", "--to", tmp_path / tenant, "--tenant", tenant)
        assert counted.exit_code == 0, counted.output
        assert sorted(path.stem for path in (tmp_path / tenant).iterdir()) == ["created", "seen"]


def test_a_type_with_other_ids_or_looser_payloads_is_counted_and_warned_of(
    processor: Processor, db: Db
) -> None:
    registry.publish_schema(db, "created", {})

    done = processor("counter", "setup", "--tenant", "acme", "--types", "created")

    assert done.exit_code == 0
    assert "its ids are not unique for a user alone" in done.stderr
    assert "need not be an object" in done.stderr
    assert count(db, "meter") == 1


def test_nothing_is_made_where_a_part_is_refused(processor: Processor, db: Db) -> None:
    before = made(db)

    done = processor("counter", "setup", "--tenant", "fresh", "--types", f"created,{'x' * 300}")

    assert done.exit_code == 2
    assert made(db) == before


def test_a_sample_is_published_by_its_name_and_the_names_are_said(
    processor: Processor, tmp_path: Path
) -> None:
    (tmp_path / "any.json").write_text("true")

    for name in samples():
        assert processor("schema", "publish", name, "--sample", name).exit_code == 0
    shown = json.loads(processor("schema", "show", "pulse").stdout)

    assert shown["title"] == "A pulse of usage"
    for wrong in (["--sample", "nothing"], [], ["any.json", "--sample", "pulse"]):
        refused = processor("schema", "publish", "pulse", *wrong)
        assert refused.exit_code == 2
        assert all(name in refused.stderr for name in samples()), refused.stderr
    assert all(name in processor("schema", "publish", "--help").stdout for name in samples())


@pytest.mark.parametrize(
    "pulse",
    [
        {"use_unity": "GiB-h"},
        {"use_unity": "vCPU·Stunde"},
        {"use_unity": "%", "used_amount": 0},
        {"product_sku": "AWS/EC2: m5.large (eu)"},
        {"used_amount": 1e30, "region": "eu-west-1", "labels": {"a": 1}},
        {"tenant_id": None, "tenant": "acme", "use_unity": None, "use_unit": "req"},
    ],
)
@pytest.mark.parametrize("form", ["bare", "native"])
def test_the_sample_of_a_pulse_takes_what_strangers_send(
    processor: Processor, make_saver: MakeSaver, db: Db, pulse: dict[str, Any], form: str
) -> None:
    processor("schema", "publish", "pulse", "--sample", "pulse")
    processor(
        *("meter", "add", "pulse", "--event-type", "pulse", "--sum", "/used_amount"),
        *("--by", "product_sku=/product_sku", "--by", "use_unity=/use_unity"),
    )
    event = {"tenant_id": "acme", "product_sku": "vm", "used_amount": 1.5, "use_unity": "GB"} | pulse
    event = {name: value for name, value in event.items() if value is not None}
    if form == "native":
        event = {"use_unity": event.pop("use_unit", "GB")} | event
        event = {"tenant_id": "acme", "event_type": "pulse", "payload": event | {"tenant_id": "acme"}}

    assert make_saver().outcomes(a_delivery(json.dumps(event).encode(), sent_now=True)) == ["stored"]
    assert (count(db, "total"), count(db, "meter_miss")) == (1, 0)


@pytest.mark.parametrize(
    "pulse",
    [
        {"use_unity": ""},
        {"use_unity": "x" * 65},
        {"use_unity": 5},
        {"product_sku": "x" * 129},
        {"used_amount": -1},
        {"used_amount": "2"},
    ],
)
def test_the_sample_of_a_pulse_refuses_what_no_meter_could_count(
    processor: Processor, make_saver: MakeSaver, pulse: dict[str, Any]
) -> None:
    processor("schema", "publish", "pulse", "--sample", "pulse")
    event = {"tenant_id": "acme", "product_sku": "vm", "used_amount": 1.5, "use_unity": "GB"} | pulse

    assert make_saver().outcomes(a_delivery(json.dumps(event).encode())) == ["schema_violation"]


def test_a_pulse_without_a_schema_is_told_of_the_sample(make_saver: MakeSaver, db: Db) -> None:
    event = {"tenant_id": "acme", "product_sku": "vm", "used_amount": 1.5, "use_unity": "GB"}

    assert make_saver().outcomes(a_delivery(json.dumps(event).encode())) == ["unknown_event_type"]
    row = db.execute("SELECT detail ->> 'message' FROM rejection").fetchone()
    assert row is not None
    assert "(processor schema publish pulse --sample pulse), then replay" in row[0]
