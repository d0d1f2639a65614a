"""What was received too often is put aside unread, and can be brought back."""

import threading
from typing import Any

import psycopg

from processor.bindings import UNBOUND
from processor.connection import connect
from processor.errors import Reason
from processor.model import Delivery, Message, Registry, Rejection
from processor.patience import Patience
from processor.schemas import Schemas
from processor.settings import Settings
from processor.sources.quarantine import Selection
from processor.store import Store
from processor.suspects import SuspectLimits
from processor.wiring import commands
from tests.builders import a_body, a_delivery
from tests.fix_database import books
from tests.workers.harness import schemas_of_acme

Db = psycopg.Connection[Any]


class Untouchable(Schemas):
    """Dies of whatever it is given to read."""

    def validate(self, delivery: Delivery) -> Message | Rejection:
        raise AssertionError(f"{delivery.delivery_id} was read")


def test_only_what_was_received_more_often_than_the_limit_is_rejected() -> None:
    limit = ReceiveLimit(schemas_of_acme(), 4)

    reasons = [
        verdict.reason.value if isinstance(verdict := limit.validate(each), Rejection) else "valid"
        for each in (a_delivery(receive_count=4), a_delivery(receive_count=5))
    ]

    assert reasons == ["unknown_event_type", "dead_lettered"]


def test_it_is_rejected_unread_and_nobody_knows_whose_it_is() -> None:
    limit = ReceiveLimit(Untouchable(body_bytes_max=1024, json_depth_max=8), 4)
    limit.install(Registry(7, {}, ()))

    verdict = limit.validate(a_delivery(b"poison", receive_count=5))

    assert isinstance(verdict, Rejection)
    assert (verdict.reason, verdict.registry_version, verdict.key_known) == (Reason.DEAD_LETTERED, 7, False)
    assert verdict.claimed.tenant_id is None
    assert verdict.detail["receive_count"] == 5
    assert verdict.delivery.body == b"poison"


def test_what_was_put_aside_can_be_replayed_and_a_neighbour_that_was_stored_before_stays_one(
    database_url: str, db: Db
) -> None:
    schemas = Schemas(body_bytes_max=1024, json_depth_max=8, bindings=UNBOUND)
    limit = ReceiveLimit(schemas, 4)
    patience = Patience("database", wait_s_max=1, stop=threading.Event())
    store = Store(lambda: connect(database_url), limit, patience, timeout_s=10)
    store.load_registry()
    stored, put_aside = a_delivery(a_body(), sent_now=True), a_delivery(a_body(id=None), sent_now=True)
    store.save([limit.validate(stored)])

    again = [_received(stored, 5), _received(put_aside, 5)]
    outcomes = [each.outcome.value for each in store.save([limit.validate(each) for each in again])]
    store.close()

    assert outcomes == ["redelivered", "rejected"]
    assert books(db) == {"message": 1, "duplicate": 0, "rejection": 1}
    settings = Settings.load(_env_file=None, database_url=database_url)
    replayed, _ = commands.replay(settings, Selection(reason="dead_lettered"), dry_run=False, forced=False)
    assert replayed == {"stored": 1}


def _received(delivery: Delivery, count: int) -> Delivery:
    return a_delivery(delivery.body, delivery_id=delivery.delivery_id, receive_count=count, sent_now=True)
