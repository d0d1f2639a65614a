"""Names, values and times at every limit that is accepted: each delivery ends as one row, and nothing stops.

The texts don't repeat themselves, so that no index can compress them; an entry has room for 2,704 bytes.
"""

import json
import random
import threading
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.model import Delivery
from processor.operations import registry, retention
from tests.builders import a_delivery
from tests.fixtures.database import MakeSaver, Saver
from tests.fixtures.meters import add_meter, differences

Db = psycopg.Connection[Any]

_LENGTHS = (1, 2, 64, 128, 192, 225, 255, 256)
_ALPHABETS = ((0x61, 0x7B), (0xC0, 0x180), (0x4E00, 0x9FA5), (0x10000, 0x1F000))
"""Characters of one, two, three and four bytes in UTF-8."""


def a_text(chance: random.Random, length_max: int = 256) -> str:
    first, after = chance.choice(_ALPHABETS)
    length = min(chance.choice(_LENGTHS), length_max)
    return "".join(chr(chance.randrange(first, after)) for _ in range(length))


def the_longest(chance: random.Random, length_max: int = 256) -> str:
    return "".join(chr(chance.randrange(*_ALPHABETS[-1])) for _ in range(length_max))


TENANTS = ["acme", a_text(random.Random(3)), the_longest(random.Random(3))]
AMOUNTS = ["0", "9" * 38, "1e-38", "0." + "9" * 38, "1e37", "1e38", "-1", "1e-39", "1e1000", "1e200000"]
TIMES = ["0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z", "2026-11-22T10:00:00." + "123456789" * 30 + "Z"]


def a_sending(chance: random.Random) -> Delivery:
    """A message or a void, most often sound, with names and values of any size that is taken."""
    text = the_longest if chance.random() < 0.4 else a_text
    tenant_id = TENANTS[-1] if text is the_longest else chance.choice(TENANTS)
    event: dict[str, Any] = {"tenant_id": tenant_id, "event_type": chance.choice(["metered", "void"])}
    if event["event_type"] == "void":
        event["payload"] = {"message_id": text(chance), "producer": text(chance)}
    else:
        event["payload"] = {"amount": "AMOUNT", "sku": text(chance), "unit": text(chance)}
    if chance.random() < 0.7:
        event["id"] = text(chance)
    if chance.random() < 0.7:
        event["producer"] = text(chance)
    if chance.random() < 0.5:
        event["occurred_at"] = chance.choice(TIMES)
    if chance.random() < 0.1:
        event["tenant_id"] = text(chance)
    body = json.dumps(event, ensure_ascii=chance.random() < 0.5).replace('"AMOUNT"', chance.choice(AMOUNTS))
    return a_delivery(
        body.encode() if chance.random() < 0.9 else body.encode()[:-1],
        queue=text(chance, 63),
        # As long as any broker's: a client of RabbitMQ chooses most of it.
        delivery_id=text(chance, 225),
        receive_count=chance.choice([1, 1, 1, 2, 3, 2**31 - 1, 2**63]),
        attributes={text(chance): text(chance)} if chance.random() < 0.2 else {},
        sender_id=text(chance),
    )


PLACES = """
    SELECT count(*)::int FROM (
      SELECT queue, delivery_id FROM message UNION ALL SELECT queue, delivery_id FROM duplicate
      UNION ALL SELECT queue, delivery_id FROM rejection
    ) AS places WHERE queue = %s AND delivery_id = %s
"""


def test_whatever_is_accepted_ends_as_one_row_and_ends_no_store(make_saver: MakeSaver, db: Db) -> None:
    for tenant_id in TENANTS[1:]:
        registry.add_tenant(db, tenant_id)
    for event_type in ("metered", "void"):
        registry.publish_schema(db, event_type, {})
    for number, group in enumerate((["sku"], ["sku", "unit"])):
        add_meter(
            db,
            f"meter-{number}",
            event_type="metered",
            value_pointer="/amount",
            group_names=group,
            group_pointers=[f"/{name}" for name in group],
            past_limit=None,
            future_limit=None,
        )
    saver = make_saver()

    @given(seed=st.integers(0, 2**63), size=st.integers(1, 6))
    @settings(max_examples=settings().max_examples)
    def trial(seed: int, size: int) -> None:
        chance = random.Random(seed)
        deliveries = [a_sending(chance) for _ in range(size)]
        again = [
            a_delivery(
                each.body,
                queue=each.queue,
                delivery_id=each.delivery_id,
                attributes=dict(each.attributes),
                receive_count=2,
            )
            for each in deliveries
        ]

        first, second = saver.outcomes(*deliveries), saver.outcomes(*again)

        assert len(first) == size
        assert second == ["redelivered"] * size
        for each in deliveries:
            assert db.execute(PLACES, each.key).fetchone() == (1,)

    trial()

    everything_goes_on(saver, db)


def everything_goes_on(saver: Saver, db: Db) -> None:
    """What reads these rows later can read them, too."""
    assert saver.outcomes(a_delivery()) == ["stored"]
    # What we make of a name ourselves is never what does not fit.
    assert db.execute("SELECT detail FROM rejection WHERE detail ->> 'error' LIKE '23514%'").fetchall() == []
    assert differences(db) == []
    reasons = {reason for (reason,) in db.execute("SELECT DISTINCT reason FROM rejection").fetchall()}
    assert {"unstorable", "schema_violation", "unknown_tenant", "not_json"} <= reasons
    db.execute("UPDATE message SET stored_at = stored_at - interval '100 days'")
    db.execute("UPDATE meter SET active_from = active_from - interval '100 days'")
    db.execute("DELETE FROM rejection; DELETE FROM duplicate")
    ages = retention.Ages(message=40, duplicate=40, rejection=40, key=35)
    retention.apply(db, ages, step_size=50, pause_s=0, stop=threading.Event(), statement_timeout_s=20)
    assert db.execute("SELECT count(*) FROM message").fetchone() == (0,)
    assert differences(db) == []
