"""The door to Kafka, and what `processor check` says of a topic, against a broker of its own process."""

from collections.abc import Iterator, Mapping

import pytest
from confluent_kafka import TopicPartition

from processor.brokers.kafka import an_onlooker
from processor.brokers.source_url import source_address
from processor.check import Finding
from processor.check.kafka import check_kafka
from processor.errors import SettingsError
from processor.settings import Settings
from processor.sources.kafka.source import KafkaSource
from producers.publishers import CallFailed
from producers.publishers.kafka import KafkaPublisher
from producers.publishers.outgoing import Outgoing
from tests.broker_servers.kafka import Mock, Tansu
from tests.sources.test_kafka import take

DAY_S = 24 * 3600


@pytest.fixture
def topic(tansu_broker: Tansu) -> str:
    return tansu_broker.topic(3)


@pytest.fixture
def publisher(tansu_broker: Tansu, topic: str) -> Iterator[KafkaPublisher]:
    publisher = KafkaPublisher(tansu_broker.url(topic))
    yield publisher
    publisher.close()


def messages(*tenants: str) -> Mapping[int, Outgoing]:
    return {
        place: Outgoing(f'{{"n": {place}}}', {"tenant_id": tenant, "trace": "é"}, group=tenant)
        for place, tenant in enumerate(tenants)
    }


def test_the_ids_that_it_gives_are_those_by_which_the_source_knows_the_messages(
    tansu_broker: Tansu, topic: str, publisher: KafkaPublisher
) -> None:
    batch = messages(*("acme", "globex", "hooli") * 4)

    answer = publisher.send(batch)

    source = KafkaSource(source_address(tansu_broker.url(topic)), session_s=6)
    deliveries = {delivery.delivery_id: delivery for delivery in take(source, 12, settle=True)}
    source.close()
    assert {answer.accepted[place] for place in batch} == set(deliveries)
    for place, message in batch.items():
        delivery = deliveries[answer.accepted[place]]
        assert (delivery.body.decode(), delivery.attributes) == (message.body, message.attributes)
    for tenant in range(3):
        # One tenant, one partition, in its order.
        own = [deliveries[answer.accepted[place]] for place in range(tenant, 12, 3)]
        assert len({delivery.group for delivery in own}) == 1
        offsets = [int(delivery.delivery_id.split("-")[1]) for delivery in own]
        assert offsets == sorted(offsets)


def test_what_somebody_else_may_hold_counts_as_handed_over_though_the_broker_keeps_no_count(
    tansu_broker: Tansu, topic: str, publisher: KafkaPublisher
) -> None:
    """Tansu drops what is written beside offsets. A member that lost its partition may be about to save."""
    publisher.send(messages("acme"))
    address = source_address(tansu_broker.url(topic, group=f"of-{topic}"))
    first = KafkaSource(address, session_s=6)
    [held] = take(first, 1)
    first.close()

    second = KafkaSource(address, session_s=6)
    [again] = take(second, 1)
    second.close()

    assert again.delivery_id == held.delivery_id
    assert (held.receive_count, again.receive_count) == (1, 2)


def test_a_url_that_is_none_is_a_mistake_of_settings() -> None:
    for url in ("amqp://u:geheim@h/?queue=q", "kafka://u:geheim@h", "x"):
        with pytest.raises(SettingsError, match="Kafka") as fault:
            KafkaPublisher(url)
        assert "geheim" not in str(fault.value)


def test_a_broker_that_is_away_is_an_outage_and_what_is_refused_by_name_is_not(kafka: Mock) -> None:
    publisher = KafkaPublisher(kafka.url(kafka.topic()))
    kafka.down()

    with pytest.raises(CallFailed, match="_ALL_BROKERS_DOWN") as outage:
        publisher.send(messages("acme"))

    assert outage.value.outage
    kafka.up()
    assert set(publisher.send(messages("acme", "acme")).accepted) == {0, 1}
    assert set(publisher.send({0: Outgoing("x" * 3_000_000), 1: Outgoing("{}")}).refused) == {0}
    refusing = KafkaPublisher(kafka.url("any").replace("kafka://", "kafka://kate:geheim@"))
    with pytest.raises(SettingsError, match="refuses the user") as fault:
        refusing.send(messages("acme"))
    assert "geheim" not in f"{fault.value}{refusing.name}"


# ── processor check ───────────────────────────────────────────────────────────────────────────────────


def look(url: str, **settings: str) -> dict[str, Finding]:
    loaded = Settings.load(_env_file=None, source_url=url, **settings)
    address = loaded.source_address()
    assert address is not None
    return {found.what: found for found in check_kafka(loaded, address)}


def test_check_tells_of_partitions_and_how_far_behind_the_group_is(
    tansu_broker: Tansu, topic: str, publisher: KafkaPublisher
) -> None:
    # In two calls, because Tansu counts the offsets of a batch as one.
    publisher.send(messages("acme"))
    publisher.send(messages("acme"))

    findings = look(tansu_broker.url(topic), visibility_timeout_s="2")

    assert findings["queue"].found == f"{topic}, 3 partition(s), group processors"
    assert findings["backlog"].found.startswith("lag: 2 message(s)")
    assert {what for what, found in findings.items() if not found.fine} == {"session"}


@pytest.mark.parametrize(
    ("topic_s", "settings", "needed"),
    [
        (30 * DAY_S, {}, None),
        (30 * DAY_S, {"key_retention_days": "29"}, "30"),
        (40 * DAY_S, {"key_retention_days": "35", "message_retention_days": "36"}, "40, and MESSAGE_RET"),
        (-0.001, {}, "36500"),
        (-0.001, {"key_retention_days": "36500"}, None),
    ],
)
def test_check_compares_how_long_keys_and_the_topics_records_are_kept(
    tansu_broker: Tansu, topic_s: float, settings: dict[str, str], needed: str | None
) -> None:
    topic = tansu_broker.topic(1, **{"retention.ms": f"{topic_s * 1000:.0f}"})

    found = look(tansu_broker.url(topic), **settings)["key retention"]

    assert found.fine is (needed is None)
    assert needed is None or f"raise KEY_RETENTION_DAYS to {needed}" in str(found.advice)


def test_check_says_that_a_segment_goes_as_a_whole(tansu_broker: Tansu) -> None:
    topic = tansu_broker.topic(
        1, **{"retention.ms": f"{30 * DAY_S}000", "segment.ms": f"{7 * DAY_S}000", "retention.bytes": "1000"}
    )

    found = look(tansu_broker.url(topic))["key retention"]

    assert not found.fine
    assert "records for up to 37 days (or 1000 bytes per partition" in found.found


def test_check_says_where_a_group_has_no_offset_yet(tansu_broker: Tansu, topic: str) -> None:
    url = tansu_broker.url(topic, group=f"of-{topic}")
    before = look(url)["offsets"]
    with an_onlooker(source_address(url)) as admin:
        admin.commit(offsets=[TopicPartition(topic, number, 0) for number in range(3)], asynchronous=False)
    after = look(url)["offsets"]

    assert before.found.startswith("none in partition(s) 0, 1, 2; ")
    assert after.found.startswith("one in each partition; ")
    assert "offsets.retention.minutes at 5760" in str(before.advice)


def test_check_says_what_is_missing_and_what_to_do(tansu_broker: Tansu, kafka: Mock) -> None:
    missing = look(tansu_broker.url("nowhere"))["queue"]
    refused = look(kafka.url("any").replace("kafka://", "kafka://kate:geheim@"))["queue"]
    kafka.down()
    away = look(kafka.url("any"))["queue"]

    assert "no topic nowhere" in missing.found
    assert "refuses the user" in refused.found
    assert "can't be reached" in away.found
    assert (missing.unreachable, refused.unreachable, away.unreachable) == (False, False, True)
    assert all(found.advice and not found.fine for found in (missing, refused, away))
    assert "geheim" not in f"{missing}{refused}{away}"
