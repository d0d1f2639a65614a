"""Invented events are what they claim to be, by the processor's own judgement, and come again by seed."""

import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest

import processor.devstack
from processor.errors import Reason, SettingsError
from processor.model import Delivery, EventSchema, Message, Registry, Rejection
from processor.settings import MIB
from processor.validation.validator import Schemas
from processor.wire.formats import Attribute
from processor.wire.manifest import payload_digest
from producers.fake.events import COUNTED, EVENT_TYPES, EventForm
from producers.fake.faults import FAULT_KINDS
from producers.fake.messages import SAMPLE_TENANTS, FakePlan, fake_messages, sample_tenants
from producers.publishers.lines import BadLine, LineReading, read_messages
from producers.publishers.outgoing import Outgoing
from tests.builders import a_delivery

SAMPLES = Path(processor.devstack.__file__).parent / "samples"


def the_sample_schemas() -> Schemas:
    """A judge who knows the sample tenants and schemas, as the demo registers them."""
    numbers = itertools.count(1)
    schemas = [
        EventSchema(next(numbers), path.name.removesuffix(".schema.json"), tenant_id, 1, path.read_text())
        for directory, tenant_id in ((SAMPLES, None), (SAMPLES / "globex", "globex"))
        for path in sorted(directory.glob("*.schema.json"))
    ]
    judge = Schemas(body_bytes_max=MIB, json_depth_max=64)
    scopes = dict.fromkeys(COUNTED, ("/user_id",))
    judge.install(Registry(1, dict.fromkeys(SAMPLE_TENANTS, False), tuple(schemas), id_scopes=scopes))
    return judge


def delivered(message: Outgoing) -> Delivery:
    attributes: dict[str, Attribute] = {**message.attributes}
    return a_delivery(message.body.encode(), attributes=attributes)


def sent(plan: FakePlan) -> list[tuple[str, dict[str, str], str]]:
    return [(message.body, dict(message.attributes), message.kind) for message in fake_messages(plan)]


def test_events_happen_from_the_moment_named_on() -> None:
    since = datetime(2026, 11, 20, 9, 50, tzinfo=UTC)
    judge = the_sample_schemas()

    verdicts = [
        judge.validate(delivered(message)) for message in fake_messages(FakePlan(2000, 1, since=since))
    ]

    moments = [verdict.occurred_at for verdict in verdicts if isinstance(verdict, Message)]
    spans = [datetime.fromisoformat(str(moment)) - since for moment in moments]
    assert len(spans) == 2000
    assert timedelta(0) < min(spans) < timedelta(seconds=2)
    assert timedelta(seconds=2000 * 0.37) < max(spans) < timedelta(seconds=2000 * 0.37 + 2)


def test_another_beginning_shares_no_id() -> None:
    ids = {
        since: {message.message_id for message in fake_messages(FakePlan(200, 1, since=since))}
        for since in (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
    }

    first, second = ids.values()
    assert not first & second


@pytest.mark.parametrize("counter", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_each_fake_has_the_verdict_that_it_was_made_for(seed: int, *, counter: bool) -> None:
    judge = the_sample_schemas()
    seen: Counter[str] = Counter()

    for message in fake_messages(FakePlan(2000, seed, invalid=0.3, duplicates=0.2, counter=counter)):
        verdict = judge.validate(delivered(message))
        seen[message.kind] += 1
        if message.kind in ("valid", "duplicate", Reason.ID_CONFLICT):
            assert isinstance(verdict, Message), (message, verdict)
            named = (verdict.tenant_id, verdict.message_id, payload_digest(verdict.payload))
            assert named == (message.tenant_id, message.message_id, message.digest)
            assert verdict.producer
        else:
            assert isinstance(verdict, Rejection), message
            assert verdict.reason == message.kind, (message, verdict.detail)

    assert seen.keys() == {"valid", "duplicate", *FAULT_KINDS}


def test_the_same_seed_says_the_same_again_and_a_longer_run_begins_like_a_shorter_one() -> None:
    plan = FakePlan(300, 7, invalid=0.2, duplicates=0.2)

    assert sent(plan) == sent(plan)
    assert sent(FakePlan(600, 7, invalid=0.2, duplicates=0.2))[:300] == sent(plan)


def test_other_plans_share_no_id() -> None:
    plans = [
        FakePlan(200, 7),
        FakePlan(200, 8),
        FakePlan(200, 7, invalid=0.1),
        FakePlan(200, 7, tenants=("acme",)),
    ]

    ids = [{message.message_id for message in fake_messages(plan)} - {None} for plan in plans]

    assert len(set.union(*ids)) == sum(map(len, ids))


def test_users_of_the_counter_share_ids_and_each_event_is_one_message() -> None:
    judge = the_sample_schemas()

    verdicts = [
        judge.validate(delivered(message)) for message in fake_messages(FakePlan(2000, 1, counter=True))
    ]

    messages = [verdict for verdict in verdicts if isinstance(verdict, Message)]
    assert len(messages) == 2000
    assert len({(message.tenant_id, message.message_id, message.producer) for message in messages}) == 2000
    assert len({message.message_id for message in messages}) < 300
    assert {message.event_type for message in messages} == set(COUNTED)


def test_a_duplicate_says_the_same_and_a_conflict_another_thing_of_an_event_that_was_sent_once() -> None:
    valid: dict[str, str | None] = {}
    duplicates: set[str] = set()
    conflicts: set[str] = set()

    for message in fake_messages(FakePlan(5000, 3, invalid=0.3, duplicates=0.2)):
        if message.message_id is None:
            continue
        if message.kind == "valid":
            valid[message.message_id] = message.digest
        elif message.kind == "duplicate":
            assert valid[message.message_id] == message.digest
            duplicates.add(message.message_id)
        elif message.kind == Reason.ID_CONFLICT:
            assert valid[message.message_id] not in (None, message.digest)
            assert message.message_id not in conflicts
            conflicts.add(message.message_id)

    assert duplicates
    assert conflicts
    assert not duplicates & conflicts


def test_the_shares_are_kept() -> None:
    kinds = Counter(message.kind for message in fake_messages(FakePlan(5000, 1, invalid=0.1, duplicates=0.2)))

    assert kinds.total() == 5000
    assert 900 < kinds["duplicate"] < 1100
    assert 3300 < kinds["valid"] < 3700


def test_all_forms_and_event_types_are_on_the_queue() -> None:
    messages = list(fake_messages(FakePlan(200, 1)))

    attributes = [message for message in messages if message.attributes]
    cloudevents = [message for message in messages if '"specversion"' in message.body]
    assert len(attributes) > 20
    assert len(cloudevents) > 20
    assert len(messages) - len(attributes) - len(cloudevents) > 20
    assert {message.attributes["event_type"] for message in attributes} == set(EVENT_TYPES)
    assert len(EventForm) == 3


def test_tenants_beyond_the_samples_are_numbered() -> None:
    assert sample_tenants(2) == ("acme", "globex")
    assert sample_tenants(7) == (*SAMPLE_TENANTS, "tenant-0006", "tenant-0007")


def lines_read(text: bytes, reading: LineReading | None = None) -> tuple[list[Outgoing], list[BadLine]]:
    bad: list[BadLine] = []
    return list(read_messages(BytesIO(text), reading or LineReading(), bad.append)), bad


def test_a_line_is_sent_as_it_is() -> None:
    line = '{"id":"o-1", "tenant_id":"acme", "event_type":"x", "payload":{"a":1.50}} '

    [message], bad = lines_read(f"\n{line}\r\n  \n".encode())

    assert (message.body, message.attributes, bad) == (line, {}, [])
    assert (message.tenant_id, message.message_id) == ("acme", "o-1")
    assert message.digest == payload_digest('{"a": 1.5}')


def test_a_bare_pulse_is_known_to_the_manifest_as_it_will_be_stored() -> None:
    [message], _ = lines_read(b'{"tenant":"acme","product_sku":"s","used_amount":1.10,"use_unit":"GB"}')
    verdict = the_sample_schemas().validate(delivered(message))

    assert isinstance(verdict, Message)
    assert (message.tenant_id, message.message_id) == (verdict.tenant_id, None)
    assert message.digest == payload_digest(verdict.payload)


def test_a_bare_pulse_may_have_an_id_and_more_which_are_no_part_of_its_payload() -> None:
    [message], _ = lines_read(
        b'{"id":"p-1","tenant_id":"acme","product_sku":"s","used_amount":1,"use_unity":"GB","region":"eu"}'
    )
    verdict = the_sample_schemas().validate(delivered(message))

    assert isinstance(verdict, Message)
    assert message.message_id == verdict.message_id == "p-1"
    assert message.digest == payload_digest(verdict.payload)


def test_what_cannot_be_sent_is_told_by_its_number_and_the_rest_is_sent() -> None:
    messages, bad = lines_read(b'{}\nHello World\n\n"caf\xe9"\n' + b"x" * (3 * MIB) + b"\n[]")

    assert [message.label for message in messages] == ["line 1", "line 6"]
    assert [line.number for line in bad] == [2, 4, 5]
    assert "not JSON: Expecting value (character 1); --raw" in bad[0].why
    assert "not UTF-8 at byte 4" in bad[1].why
    assert "longer than" in bad[2].why


@pytest.mark.parametrize("body", ["Hello World", "[" * 5000, "NaN"])
def test_raw_lets_pass_what_is_not_json(body: str) -> None:
    messages, bad = lines_read(body.encode(), LineReading(raw=True))

    assert [(message.body, message.digest) for message in messages] == [(body, None)]
    assert not bad


def test_an_id_is_made_only_where_it_is_asked_for_and_missing() -> None:
    text = b'{ "event_type":"x","tenant_id":"a","payload":0.10}\n{"id":"1","event_type":"x","payload":1}'

    (without, _), _ = lines_read(text)
    (made, kept), _ = lines_read(text, LineReading(make_ids=True))

    assert (without.message_id, kept.message_id) == (None, "1")
    assert json.loads(made.body)["id"] == made.message_id
    assert made.body.endswith('"payload":0.10}')


def test_a_payload_travels_with_its_envelope_in_attributes() -> None:
    reading = LineReading(tenant_id="acme", event_type="order.created", producer="shop")

    (one, other), _ = lines_read(b'{"a":1}\n{"a":1}', reading)

    assert one.attributes == {
        "tenant_id": "acme",
        "event_type": "order.created",
        "producer": "shop",
        "message_id": one.message_id,
    }
    assert one.message_id != other.message_id
    assert one.digest == payload_digest('{"a":1.0}')


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="go together"):
        LineReading(tenant_id="acme")
    with pytest.raises(SettingsError, match="--producer goes with"):
        LineReading(producer="shop")
    with pytest.raises(SettingsError, match="--make-ids is for whole bodies"):
        LineReading(tenant_id="a", event_type="b", make_ids=True)
