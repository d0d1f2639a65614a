"""Whatever comes gets one outcome, keeps it, is stored as it was sent, and is read back by everyone."""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.cli import cli
from processor.model import Delivery, Outcome, Settlement
from processor.operations import registry
from processor.wire.formats import Attribute
from tests.builders import a_delivery
from tests.fixtures.database import Saver, books
from tests.fixtures.readers import ReadBack
from tests.properties.anything import Sending, batches, sending_of

Db = psycopg.Connection[Any]

SHOWN = 10
"""As many rejections and messages are asked for one by one at the end."""

OF_THE_REGISTRY = {
    *("unknown_tenant", "tenant_suspended", "unknown_event_type", "unknown_schema_version"),
    *("schema_violation", "id_conflict"),
}
"""Why what is sound in its form may be rejected."""

EVERY_OUTCOME = OF_THE_REGISTRY | {
    *(
        "stored",
        "duplicate",
        "not_utf8",
        "not_json",
        "envelope_invalid",
        "unknown_schema_version",
        "unstorable",
    ),
}

_CAUSE = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]")
"""How NUL and halves of surrogate pairs are written in JSON: all that PostgreSQL refuses of what we take."""


class Trial:
    """Saves batches, and asks of each what must hold."""

    def __init__(self, saver: Saver, db: Db) -> None:
        self._saver = saver
        self._db = db
        self._numbers = itertools.count(1)

    def send(self, sendings: Sequence[Sending]) -> list[Delivery]:
        number = next(self._numbers)
        return [
            a_delivery(
                sending.body_of(number),
                attributes=sending.attributes_of(number),
                receive_count=sending.receive_count,
            )
            for sending in sendings
        ]

    def save(self, deliveries: Sequence[Delivery]) -> list[Settlement]:
        """Save; each delivery is in one table, once, and each but the repeated is a row more."""
        before = sum(books(self._db).values())

        settlements = self._saver.save(*deliveries)

        ids = {delivery.delivery_id for delivery in deliveries}
        assert [settlement.delivery for settlement in settlements] == list(deliveries)
        assert self._places(ids) == dict.fromkeys(ids, 1)
        assert sum(books(self._db).values()) == before + len(ids)
        self._stored_as_sent(settlements)
        return settlements

    def come_again(self, deliveries: Sequence[Delivery], chance: random.Random) -> None:
        """Nothing is written for deliveries that have an outcome, whatever batch they come in."""
        before = books(self._db)
        again = [replace(delivery, receive_count=chance.randint(1, 4)) for delivery in deliveries]
        chance.shuffle(again)
        while again:
            size = chance.randint(1, len(again))
            assert self._saver.outcomes(*again[:size]) == ["redelivered"] * size
            del again[:size]
        assert books(self._db) == before

    def _places(self, delivery_ids: set[str]) -> dict[str, int]:
        return dict(
            self._db.execute(
                "SELECT delivery_id, count(*) FROM (SELECT delivery_id FROM message"
                " UNION ALL SELECT delivery_id FROM duplicate UNION ALL SELECT delivery_id FROM rejection)"
                " AS places WHERE delivery_id = ANY (%s) GROUP BY 1",
                [list(delivery_ids)],
            ).fetchall()
        )

    def _stored_as_sent(self, settlements: Sequence[Settlement]) -> None:
        ids = [settlement.delivery.delivery_id for settlement in settlements]
        payloads = dict(
            self._db.execute(
                "SELECT delivery_id, payload::text FROM message WHERE delivery_id = ANY (%s)", [ids]
            ).fetchall()
        )
        kept = {
            delivery_id: (body, kept_attributes, reason)
            for delivery_id, body, kept_attributes, reason in self._db.execute(
                "SELECT delivery_id, body, attributes, reason FROM rejection WHERE delivery_id = ANY (%s)",
                [ids],
            )
        }
        for settlement in settlements:
            delivery = settlement.delivery
            match settlement.outcome:
                case Outcome.STORED:
                    assert exact(payloads[delivery.delivery_id]) == payload_of(delivery)
                case Outcome.REJECTED:
                    body, kept_attributes, reason = kept[delivery.delivery_id]
                    assert (body, reason) == (delivery.body, settlement.reason)
                    assert len(kept_attributes) == len(delivery.attributes) or has_odd_text(
                        delivery.attributes
                    )
                    assert reason != "unstorable" or _CAUSE.search(body) or has_odd_text(delivery.attributes)


def exact(text: str | bytes) -> Any:
    """A JSON value whose numbers are compared by all their digits, and are no booleans."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> tuple[str, Decimal]:
    return "number", Decimal(digits)


def payload_of(delivery: Delivery) -> Any:
    """What of a valid delivery is the payload, as the README says and not as the decoder does."""
    document = exact(delivery.body)
    if {"tenant_id", "event_type"} <= delivery.attributes.keys():
        return document
    for mark, member in (("specversion", "data"), ("event_type", "payload")):
        if mark in document and member in document:
            return document[member]
    return {
        "tenant_id": document.get("tenant_id", document.get("tenant")),
        "product_sku": document["product_sku"],
        "used_amount": document["used_amount"],
    } | (
        {"use_unity": document[units.pop()]} if (units := document.keys() & {"use_unity", "use_unit"}) else {}
    )


def has_odd_text(attributes: Mapping[str, Attribute]) -> bool:
    """Whether a name or a text among the attributes has characters that PostgreSQL refuses."""
    texts = [*attributes, *(value for value in attributes.values() if isinstance(value, str))]
    return any(re.search("[\0\ud800-\udfff]", text) for text in texts)


def kind(settlement: Settlement) -> str:
    """What became of it, whoever of those with the same key came first."""
    if settlement.reason in (None, "id_conflict"):
        return "a message of its key"
    return str(settlement.reason)


def test_whatever_comes_gets_one_outcome_for_ever_and_is_read_back_by_everyone(
    saver: Saver, db: Db, database_url: str, read_back: ReadBack
) -> None:
    registry.publish_schema(db, "anything", {})
    registry.publish_schema(db, "pulse", {"properties": {"used_amount": {"type": "number"}}})
    registry.set_tenant_status(db, "globex", "suspended")
    trial = Trial(saver, db)
    outcomes: Counter[str] = Counter()

    @settings(max_examples=settings().max_examples * 6 // 10)
    # The first thing tried is always the same, so that every outcome occurs whatever else is drawn.
    @example([sending_of(seed) for seed in range(200)], random.Random(1))
    @given(batches, st.randoms(use_true_random=False))
    def holds(batch: list[Sending], chance: random.Random) -> None:
        deliveries = trial.send(batch)
        repeated = chance.choices(deliveries, k=chance.randint(0, 2))
        settlements = trial.save(deliveries + repeated)
        assert all(
            settlement.reason is None or settlement.reason in OF_THE_REGISTRY
            for sending, settlement in zip(batch, settlements, strict=False)
            if sending.sound
        )
        trial.come_again(deliveries, chance)

        places = list(range(len(batch)))
        chance.shuffle(places)
        shuffled = trial.save(trial.send([batch[place] for place in places]))
        assert [kind(settlement) for settlement in shuffled] == [kind(settlements[place]) for place in places]

        outcomes.update(str(settlement.reason or settlement.outcome) for settlement in shuffled)

    holds()

    assert outcomes.keys() == EVERY_OUTCOME, "what is drawn leaves something out"
    read_back()
    commands_show_all(db, database_url)


def commands_show_all(db: Db, database_url: str) -> None:
    """The commands for people take whatever stands in the tables."""

    def run(*words: object) -> str:
        result = CliRunner().invoke(
            cli, [str(word) for word in words], env={"DATABASE_URL": database_url, "SQS_QUEUE_URL": None}
        )
        assert result.exit_code == 0, (words, result.output, result.exc_info)
        return result.stdout

    count = books(db)["rejection"]
    assert len(json.loads(run("rejection", "list", "--json", "--limit", 100_000))) == count
    assert len(run("rejection", "list", "--limit", 100_000).splitlines()) > count
    json.loads(run("rejection", "stats", "--json"))
    run("rejection", "stats")
    for rejection_id, body in _some(db, "SELECT rejection_id, body FROM rejection"):
        assert f"({len(body)} bytes)" in run("rejection", "show", rejection_id)
        assert json.loads(run("rejection", "show", rejection_id, "--json"))["rejection_id"] == rejection_id
    for table in books(db):
        for message_id, delivery_id in _some(
            db, f"SELECT coalesce(message_id, delivery_id), delivery_id FROM {table}"
        ):
            found = json.loads(run("trace", "--json", "--", message_id))
            assert delivery_id in [row["delivery_id"] for row in found["found"]]
            run("trace", "--", message_id)
    assert json.loads(run("audit", "--json"))["holds"]


def _some(db: Db, query: str) -> list[tuple[Any, ...]]:
    return db.execute(f"{query} ORDER BY hashtext(delivery_id) LIMIT {SHOWN}").fetchall()
