"""What the gateway says yes to is on the queue, in one form, and comes out in the table as it was meant."""

import asyncio
import json
import uuid
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.operations import registry
from processor.pipeline.pipeline import once
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wire.formats import Envelope, decode
from producers.gateway.effort import ITEM
from producers.gateway.intake import BREATH_WEIGHT, QueueIntake
from producers.gateway.items import Caller, Item, Why
from producers.gateway.queue.gather import Gather
from producers.gateway.reading import EventReader
from tests.fixtures.database import Saver
from tests.gateway.taking import (
    a_pulse,
    an_intake,
    an_item,
    ids_on_the_queue,
    on_the_queue,
    refused,
    run,
    taken,
    words,
)
from tests.rig import wait_until

Db = psycopg.Connection[Any]

ANYBODY = Caller()
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

A_CLOUDEVENT = b"""{"specversion": "1.0", "id": "c-1", "source": "/shop", "type": "order.created",
    "tenantid": "acme", "time": "2026-11-22T10:00:00.5+01:00", "region": "eu", "data": {"total": 2.50}}"""
A_NATIVE_EVENT = b"""{"id": "n-1", "tenant_id": "acme", "event_type": "order.created", "producer": "till",
    "schema_version": 1,
    "payload": {"total": 0.10000000000000000000000000000001}, "note": [1.0, {"a": null}]}"""
A_PAYLOAD = Item(
    b'{"total": 3.00}',
    {"tenant_id": "acme", "event_type": "order.created", "message_id": "a-1", "shard": "7"},
)


@pytest.mark.parametrize("client", ["lean", "boto3"])
def test_an_event_of_every_format_comes_out_in_the_table_with_every_digit(
    client: str, settings: Settings, saver: Saver, db: Db
) -> None:
    registry.publish_schema(db, "pulse", {})

    async def take() -> list[Any]:
        caller = Caller("acme", {"traceparent": TRACEPARENT, "tracestate": "a=b", "x-other": "no"})
        async with an_intake(settings, sqs_client=client) as intake:
            return await intake.take([Item(A_NATIVE_EVENT), Item(A_CLOUDEVENT), A_PAYLOAD, a_pulse()], caller)

    found = taken(run(take()))
    once(SqsSource.open(settings), saver.schemas, saver.store, limit=10, wait_s=1)

    trace = {"traceparent": TRACEPARENT, "tracestate": "a=b"}
    stored = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT message_id, delivery_id, event_type, producer, payload::text, context,"
            " to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') FROM message"
        )
    }
    assert [(word.message_id, word.delivery_id) for word in found] == [
        (message_id, stored[message_id][0]) for message_id in ("n-1", "c-1", "a-1", found[3].message_id)
    ]
    assert stored["n-1"][1:] == (
        "order.created",
        "till",
        '{"total": 0.10000000000000000000000000000001}',
        {"note": [1.0, {"a": None}], **trace},
        None,
    )
    assert stored["c-1"][1:] == (
        "order.created",
        "/shop",
        '{"total": 2.50}',
        {"region": "eu", **trace},
        "2026-11-22 09:00:00.500",
    )
    assert stored["a-1"][1:] == ("order.created", "", '{"total": 3.00}', {"shard": "7", **trace}, None)
    assert json.loads(stored[found[3].message_id][3])["use_unity"] == "KB"
    assert '"used_amount": 1.10' in stored[found[3].message_id][3]


def test_a_bad_item_is_refused_and_its_neighbours_are_taken(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    items = [
        an_item(id="first"),
        Item(b"\xff"),
        Item(b"nonsense"),
        Item(b"{}"),
        Item(b'{"event_type": "x", "payload": {}, "tenant_id": 5, "id": ""}'),
        Item(b'{"specversion": "0.3", "type": "x"}'),
        Item(b'"' + b"x" * 2000 + b'"'),
        an_item(id="last"),
    ]

    async def take() -> list[Any]:
        async with an_intake(queue_settings, body_bytes_max=1500) as intake:
            return await intake.take(items, ANYBODY)

    found = run(take())

    assert words(found) == [
        "taken", "malformed", "malformed", "malformed", "invalid", "invalid", "too_large", "taken",
    ]  # fmt: skip
    assert [(error["pointer"], error["rule"]) for error in found[4].errors] == [
        ("/tenant_id", "string_type"),
        ("/id", "string_too_short"),
    ]
    assert [error["pointer"] for error in found[5].errors] == ["/specversion"]
    assert ids_on_the_queue(sqs_server, queue_url) == ["first", "last"]


def test_a_key_sends_only_as_its_own_tenant(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings) as intake:
            return await intake.take([an_item(), an_item(id="mine", tenant_id="globex")], Caller("globex"))

    assert words(run(take())) == ["forbidden", "taken"]
    assert ids_on_the_queue(sqs_server, queue_url) == ["mine"]


def test_an_id_is_the_events_own_or_the_key_of_the_request_or_made(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings) as intake:
            items = [
                an_item(id="own", message_id="key"),
                an_item(id=None, message_id="key"),
                an_item(id=None),
                an_item(id=None, message_id="x" * 257),
            ]
            return await intake.take(items, ANYBODY)

    own, key, made, bad = run(take())

    assert (own.message_id, own.made_id) == ("own", False)
    assert (key.message_id, key.made_id) == ("key", False)
    assert made.made_id
    assert uuid.UUID(made.message_id).version == 4
    assert bad.why is Why.INVALID
    assert "idempotency key" in bad.detail


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (A_CLOUDEVENT.replace(b"region", b"payload"), "payload"),
        (A_CLOUDEVENT.replace(b"region", b"producer"), "producer"),
    ],
)
def test_a_name_that_means_something_else_in_a_native_event_goes_on_in_another_format(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, item: bytes, name: str
) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings) as intake:
            return await intake.take([Item(item)], ANYBODY)

    taken(run(take()))

    [message] = on_the_queue(sqs_server, queue_url)
    found = decode(message["Body"].encode(), {}, size_bytes_max=10**6, depth_max=64)
    assert isinstance(found, Envelope)
    assert json.loads(found.context or "").keys() == {name}


def test_a_name_that_no_format_has_room_for_is_refused(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings) as intake:
            body = b'{"n": 1}'
            attributes = {"tenant_id": "acme", "event_type": "order.created", "payload": "p"}
            return await intake.take([Item(body, attributes)], ANYBODY)

    refusal = refused(run(take()))

    assert refusal.why is Why.INVALID
    assert [error["pointer"] for error in refusal.errors] == ["/payload"]


def test_an_attribute_that_would_make_it_another_format_is_refused(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        attributes = {"tenant_id": "acme", "event_type": "order.created", "specversion": "1.0"}
        async with an_intake(queue_settings) as intake:
            return await intake.take([Item(b"{}", attributes)], ANYBODY)

    assert [error["pointer"] for error in refused(run(take())).errors] == ["/specversion"]


def test_what_is_too_large_or_too_deep_with_its_envelope_is_refused(queue_settings: Settings) -> None:
    """Behind the queue it would be a rejection, after a word that it was taken."""
    attributes = {"tenant_id": "acme", "event_type": "order.created"}
    large = Item(b'"' + b"x" * 1990 + b'"', attributes)
    deep, deepest = Item(b"[" * 7 + b"]" * 7, attributes), Item(b"[" * 8 + b"]" * 8, attributes)

    async def take() -> list[Any]:
        async with an_intake(queue_settings, body_bytes_max=2000, json_depth_max=8) as intake:
            return await intake.take([large, deep, deepest], ANYBODY)

    found = run(take())

    assert words(found) == ["too_large", "taken", "malformed"]
    assert "with its envelope" in found[0].detail


def test_a_trace_that_is_none_is_left_out_and_the_event_is_taken(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    async def take() -> list[Any]:
        trace = {"traceparent": "nonsense\n", "tracestate": "\x00"}
        async with an_intake(queue_settings) as intake:
            return await intake.take([an_item()], Caller(None, trace))

    taken(run(take()))

    [message] = on_the_queue(sqs_server, queue_url)
    assert "MessageAttributes" not in message


# ── gathering ─────────────────────────────────────────────────────────────────────────────────────────


def test_items_of_many_requests_share_calls_of_ten(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str, call_sizes: list[int]
) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings, gateway_linger_ms=200) as intake:
            return await asyncio.gather(*(intake.take([an_item()], ANYBODY) for _ in range(25)))

    found = [word for request in run(take()) for word in taken(request)]

    assert sorted(call_sizes) == [5, 10, 10]
    assert sorted(word.message_id for word in found) == ids_on_the_queue(sqs_server, queue_url)
    assert len({word.delivery_id for word in found}) == 25


def test_a_long_request_gets_all_its_words_even_if_the_first_ones_come_early(
    queue_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, many = EventReader.read, 2 * BREATH_WEIGHT // ITEM

    def late(reading: EventReader, item: Item, *more: Any) -> Any:
        if item.body.startswith(b"nonsense"):
            wait_until(lambda: sum(answered) >= many, "what was read so far is answered")
        return read(reading, item, *more)

    def noted(gather: Gather, batch: list[Any], *more: Any) -> None:
        sent(gather, batch, *more)
        answered.append(len(batch))

    answered: list[int] = []
    sent = Gather._sent
    monkeypatch.setattr(EventReader, "read", late)
    monkeypatch.setattr(Gather, "_sent", noted)

    async def take() -> list[Any]:
        # The last ones weigh too much to be read on the loop, or at a stretch with those before.
        items = [an_item() for _ in range(many)] + [an_item(payload={"note": "x" * BREATH_WEIGHT})]
        async with an_intake(queue_settings) as intake:
            return await intake.take([*items, Item(b"nonsense".ljust(BREATH_WEIGHT)), an_item()], ANYBODY)

    found = words(run(take()))

    assert found[-2:] == ["malformed", "taken"]
    assert found[:many] == ["taken"] * many


def test_a_call_has_no_more_bytes_than_sqs_takes(queue_settings: Settings, call_sizes: list[int]) -> None:
    async def take() -> list[Any]:
        large = [an_item(payload={"total": 1, "note": "x" * 400_000}) for _ in range(5)]
        async with an_intake(queue_settings, gateway_timeout_s=30, gateway_linger_ms=1000) as intake:
            return await intake.take(large, ANYBODY)

    assert words(run(take())) == ["taken"] * 5
    assert sorted(call_sizes) == [1, 2, 2]


def test_a_tenant_is_a_group_of_its_own(
    queue_settings: Settings, sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    async def take() -> None:
        async with an_intake(queue_settings) as intake:
            taken(await intake.take([an_item(id="a"), an_item(id="g", tenant_id="globex")], ANYBODY))

    run(take())

    groups = {
        json.loads(message["Body"])["id"]: message["Attributes"].get("MessageGroupId")
        for message in on_the_queue(sqs_server, queue_url)
    }
    assert groups == {"a": "acme", "g": "globex"}


def test_what_is_beyond_the_room_is_refused_at_once_and_keeps_its_quota(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        bounds = {"gateway_waiting_max": 10, "gateway_tenant_rate": 0.001, "gateway_tenant_burst": 10}
        async with an_intake(queue_settings, **bounds) as intake:
            first = await intake.take([an_item() for _ in range(12)], ANYBODY)
            return [*first, *await intake.take([an_item() for _ in range(2)], ANYBODY)]

    found = run(take())

    # One place is left to the others.
    assert words(found) == ["taken"] * 9 + ["over_quota"] * 3 + ["taken", "over_quota"]
    assert [found[9].detail, found[9].retry_after_s] == [
        "the gateway is at capacity; this event was not kept",
        1,
    ]
    assert found[13].retry_after_s == 1000


def test_a_tenant_with_many_events_lets_one_of_another_tenant_by(
    queue_settings: Settings,
) -> None:
    """There is one call at a time, of ten events."""
    order: list[str] = []

    async def take(intake: QueueIntake, tenant_id: str, number: int) -> None:
        found = await intake.take([an_item(tenant_id=tenant_id) for _ in range(number)], Caller(tenant_id))
        taken(found)
        order.append(tenant_id)

    async def both() -> None:
        async with an_intake(queue_settings, gateway_senders=1) as intake:
            await asyncio.gather(take(intake, "acme", 25), take(intake, "globex", 1))

    run(both())

    assert order == ["globex", "acme"]


def test_nobody_alone_has_all_the_room(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings, gateway_waiting_max=10, gateway_linger_ms=1000) as intake:
            both = (("acme", 12), ("globex", 1))
            return await asyncio.gather(
                *(intake.take([an_item(tenant_id=one)] * number, Caller(one)) for one, number in both)
            )

    acme, globex = map(words, run(take()))

    assert acme == ["taken"] * 9 + ["over_quota"] * 3
    assert globex == ["taken"]


def test_a_tenant_over_its_quota_does_not_stop_another(queue_settings: Settings) -> None:
    async def take() -> list[Any]:
        async with an_intake(queue_settings, gateway_tenant_rates={"acme": 0.5}) as intake:
            return await intake.take(
                [an_item(), an_item(), an_item(tenant_id="globex"), an_item(tenant_id="globex")], ANYBODY
            )

    found = run(take())

    assert words(found) == ["taken", "over_quota", "taken", "taken"]
    assert found[1].retry_after_s == 2


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_taken_in_gets_its_word_before_the_end_and_nothing_is_taken_after(
    queue_settings: Settings,
) -> None:
    async def take() -> tuple[list[Any], list[Any], str]:
        async with an_intake(queue_settings, gateway_linger_ms=100) as intake:
            async with asyncio.TaskGroup() as group:
                taking = group.create_task(intake.take([an_item() for _ in range(3)], ANYBODY))
                await asyncio.sleep(0)
                await intake.close()
                await asyncio.sleep(0)
                assert taking.done()
            return taking.result(), await intake.take([an_item()], ANYBODY), await intake.ready()

    before, after, ready = run(take())

    assert words(before) == ["taken"] * 3
    assert words(after) == ["unavailable"]
    assert "about to stop" in ready
