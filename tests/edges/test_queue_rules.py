"""What the registry says of a queue: from the command to the row, in every process, and in a replay."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from processor import registry
from processor.cli import cli
from processor.connection import connect
from processor.devstack.sqs import EmbeddedSqs
from processor.patience import Patience
from processor.queue_rules import set_queue
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.quarantine import Selection
from processor.store import Store
from processor.wiring.commands import replay, run_check
from processor.wiring.service import Stops, run
from tests.builders import QUEUE, a_delivery
from tests.fix_check import with_changes
from tests.fix_database import LogIn, MakeSaver, Saver, books, count

pytestmark = pytest.mark.usefixtures("nothing_is_set")
Db = psycopg.Connection[Any]

APP = {"tenant_id": "/client_id", "event_type": "/event_type", "payload": "/message"}
"""How the event process app has it."""


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs `processor` with a database and nothing else set."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return call


def version(db: Db) -> int:
    row = db.execute("SELECT version FROM registry").fetchone()
    assert row is not None
    return int(row[0])


def app_body(**changes: Any) -> bytes:
    event = {"event_type": "order.created", "client_id": 7, "message": {"total": 1.5}, "host": "a"}
    return json.dumps(event | changes).encode()


def test_a_mapping_that_is_set_takes_the_bodies_of_the_event_process_app(
    command: Any, saver: Saver, db: Db
) -> None:
    registry.add_tenant(db, "7")
    assert saver.outcomes(a_delivery(app_body())) == ["envelope_invalid"]

    done = command("queue", "set", QUEUE, *(f"--map={name}={at}" for name, at in APP.items()))

    assert done.exit_code == 0, done.output
    assert saver.outcomes(a_delivery(app_body())) == ["stored"]
    assert db.execute("SELECT tenant_id, event_type, payload, context FROM message").fetchall() == [
        ("7", "order.created", {"total": 1.5}, {"host": "a"})
    ]
