"""A meter of pulses, windows that are over, and a sink on a real socket."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner

from processor.cli import cli
from processor.devstack.servers.sink import Receiver
from processor.handover.batches import Waiting
from processor.handover.dispatcher import Tally
from processor.model import Delivery
from processor.settings import Settings
from processor.wiring import dispatch
from tests.builders import a_delivery

HOUR = timedelta(hours=1)
_numbers = itertools.count(1)

Row = tuple[Any, ...]
Db = psycopg.Connection[Any]
HandOver = Callable[..., tuple[Tally, Waiting]]


def an_hour_ago(hours: int = 2) -> datetime:
    """The beginning of an hour that is over, with its grace."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - hours * HOUR


def a_pulse(
    amount: str | int = 1,
    sku: str = "disk",
    unit: str = "GB",
    *,
    tenant: str = "acme",
    at: datetime | None = None,
    message_id: str | None = None,
) -> Delivery:
    """A delivery of a pulse, by default of a window that is over and due."""
    payload = {"tenant_id": tenant, "product_sku": sku, "used_amount": "AMOUNT", "use_unity": unit}
    event = {
        "id": message_id or f"pulse-{next(_numbers)}",
        "tenant_id": tenant,
        "event_type": "pulse",
        "occurred_at": (at or an_hour_ago() + timedelta(minutes=5)).isoformat(),
        "payload": payload,
    }
    return a_delivery(json.dumps(event).replace('"AMOUNT"', str(amount)).encode(), sent_now=True)


def a_void(message_id: str) -> Delivery:
    payload = {"message_id": message_id, "producer": ""}
    return a_delivery(tenant_id="acme", event_type="void", payload=payload, sent_now=True)


@pytest.fixture
def pulses(db: psycopg.Connection[Any]) -> None:
    """A shared meter of pulses that is handed over, and the event types that it is about."""
    for event_type in ("pulse", "void"):
        db.execute("INSERT INTO event_type (event_type) VALUES (%s)", (event_type,))
        db.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES (%s, 1, %s::jsonb)",
            (event_type, '{"type": "object"}'),
        )
    db.execute(
        "INSERT INTO meter (meter, event_type, aggregation, value_pointer, group_names, group_pointers,"
        " is_handed_over) VALUES ('pulse', 'pulse', 'sum', '/used_amount',"
        " '{product_sku,use_unity}', '{/product_sku,/use_unity}', true)"
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def lines(db: psycopg.Connection[Any]) -> list[Row]:
    """Every line: sku, revision, value, messages, and whether it is handed over."""
    return db.execute(
        "SELECT group_key::jsonb ->> 'product_sku', revision, value, messages, handed_over_at IS NOT NULL"
        " FROM usage_line ORDER BY 1, tenant_id, window_start, 2"
    ).fetchall()


def states(db: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(db.execute("SELECT group_by ->> 'product_sku', state FROM usage").fetchall())


def total_of(db: psycopg.Connection[Any]) -> Decimal:
    row = db.execute("SELECT coalesce(sum(value), 0) FROM usage").fetchone()
    assert row is not None
    return Decimal(row[0])


@dataclass(frozen=True)
class Answer:
    """What a command ended with, printed, and said of what went wrong."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def processor(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs `processor` with the test's database; fails where it ends by anything but an exit code."""
    monkeypatch.chdir(tmp_path)  # A .env of this machine is none of ours.

    def run(*words: object, **more: str) -> Answer:
        environment = {"DATABASE_URL": database_url, "RETRY_WAIT_S_MAX": "0.1"} | more
        result = CliRunner().invoke(
            cli, [str(word) for word in words], env=environment, prog_name="processor"
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield run
    structlog.reset_defaults()


@pytest.fixture
def hand_over(database_url: str, receiver: Receiver) -> HandOver:
    """Closes and sends all that waits, once, as `processor dispatch --once` does."""

    def run(**changes: Any) -> tuple[Tally, Waiting]:
        values = {
            "database_url": database_url,
            "usage_sink_url": receiver.url,
            "usage_sink_timeout_s": 5,
            "retry_wait_s_max": 0.1,
        }
        return dispatch.run_once(Settings.load(_env_file=None, **(values | changes)), threading.Event())

    return run


def waiting_troubles(db: Db) -> list[str | None]:
    rows = db.execute("SELECT trouble FROM usage_line WHERE handed_over_at IS NULL ORDER BY trouble")
    return [trouble for (trouble,) in rows]


def sums_in_the_database(db: Db) -> dict[tuple[str, ...], Decimal]:
    rows = db.execute(
        "SELECT tenant_id, group_by ->> 'product_sku', group_by ->> 'use_unity',"
        " to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), value FROM usage"
        " WHERE meter = 'pulse' AND state <> 'open'"
    ).fetchall()
    return {tuple(row[:4]): row[4] for row in rows}


def assert_balanced(db: Db, receiver: Receiver) -> None:
    """The sink has every line, none changed, and its sums are those of the database."""
    assert receiver.books.changed == []
    assert receiver.books.missing_revisions() == []
    assert receiver.books.sums() == sums_in_the_database(db)
    assert db.execute("SELECT count(*) FROM usage_line").fetchone() == (len(receiver.books.lines),)
