"""Kafka's part of `processor check`: whether we get in, the topic is there, and how far behind the group is.

Nothing is read from the topic, and the group is not joined: that would take partitions from its members.
"""

from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # without __all__

from processor.addresses import SourceAddress
from processor.check import Finding, judge, listed, tell
from processor.check.queue import RETENTION_S_MIN
from processor.kafka_client import NO_TOPIC, REFUSED, an_onlooker, configuration, lag_of, name_of, place
from processor.settings import Settings

_ASK_S_MAX = 3.0
_SESSION_S = (6, 1800)
"""What a broker takes for a session, unless it is told otherwise."""


def check_kafka(settings: Settings, address: SourceAddress) -> list[Finding]:
    """Look at the topic of SOURCE_URL and at its group's offsets."""
    errors: list[str] = []
    with an_onlooker(address, on_error=errors.append) as onlooker:
        try:
            topic = onlooker.list_topics(address.queue, timeout=_ASK_S_MAX).topics[address.queue]
        except KafkaException as error:
            onlooker.poll(0)
            return [_unreachable(address, name_of(error), errors)]
        if topic.error is not None:
            return [_refused(address, topic.error.name())]
        return [
            tell(
                "queue",
                f"{address.queue}, {len(topic.partitions)} partition(s), as the group {address.group}",
                note=len(topic.partitions) == 1,
                advice="with one partition one process does it all, and any others wait idle",
            ),
            *_backlog(onlooker, address),
            *_retention(address),
            _session(settings),
            _receive_count(settings),
        ]


def _unreachable(address: SourceAddress, name: str, errors: list[str]) -> Finding:
    refused = next((error for error in errors if error in REFUSED), None)
    if refused is not None:
        return judge(
            "queue",
            f"Kafka refuses the user of SOURCE_URL: {refused}",
            fine=False,
            advice="put a valid user and password into SOURCE_URL, and the mechanism into ?sasl=",
        )
    return Finding(
        "queue",
        fine=False,
        found=f"Kafka can't be reached at {place(address)}: {name}",
        advice="is SOURCE_URL right, and does the network let us out? TLS needs kafkas://, a login "
        "USER:PASSWORD@. The processor waits until then",
        unreachable=True,
    )


def _refused(address: SourceAddress, name: str) -> Finding:
    if name in NO_TOPIC:
        return judge(
            "queue",
            f"Kafka has no topic {address.queue}",
            fine=False,
            advice="make it (kafka-topics --create), with as many partitions as processes may ever "
            "run, or mend SOURCE_URL; the processor makes none, and waits",
        )
    return judge(
        "queue",
        f"Kafka refuses to tell of {address.queue}: {name}",
        fine=False,
        advice=f"give this user Describe and Read on the topic, and Read on the group {address.group}",
    )


def _backlog(onlooker: Consumer, address: SourceAddress) -> Iterator[Finding]:
    try:
        lag: Mapping[int, int] = lag_of(onlooker, address.queue, _ASK_S_MAX)
    except KafkaException as error:
        yield judge(
            "backlog",
            f"can't be asked for: {name_of(error)}",
            fine=False,
            advice=f"the right Read on the group {address.group} is needed",
        )
        return
    behind = [f"{number}: {count}" for number, count in lag.items() if count]
    yield tell(
        "backlog",
        f"{sum(lag.values())} message(s) behind" + (f"; by partition {listed(behind)}" if behind else ""),
        note=bool(behind),
        advice="set an alarm on its growth (processor_queue_messages, state visible)",
    )


def _retention(address: SourceAddress) -> Iterator[Finding]:
    """Judge how long the topic keeps what nobody has read, where the broker tells."""
    admin = AdminClient(configuration(address))
    asked = admin.describe_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, address.queue)], request_timeout=_ASK_S_MAX
    )
    try:
        [found] = [answer.result(_ASK_S_MAX * 2) for answer in asked.values()]
        policy = found["cleanup.policy"].value if "cleanup.policy" in found else "delete"
        retention_s = int(found["retention.ms"].value) / 1000
    except (KafkaException, KeyError, ValueError, TypeError, TimeoutError):
        yield tell(
            "retention",
            "the broker does not tell it",
            note=True,
            advice=f"keep retention.ms at {RETENTION_S_MIN * 1000} or more: what an outage leaves unread for "
            "longer is deleted, and nobody has its rows",
        )
        return
    yield judge(
        "retention",
        "for ever" if retention_s < 0 else f"{retention_s:.0f} s",
        fine=retention_s < 0 or retention_s >= RETENTION_S_MIN,
        advice=f"raise the topic's retention.ms to {RETENTION_S_MIN * 1000} or more: Kafka deletes what an "
        "outage leaves unread for longer, and nobody has its rows",
    )
    yield judge(
        "compaction",
        f"cleanup.policy={policy}",
        fine="compact" not in str(policy),
        advice="use cleanup.policy=delete: of several events with one key, compaction keeps only the last",
    )


def _session(settings: Settings) -> Finding:
    least, most = _SESSION_S
    return judge(
        "session",
        f"{settings.visibility_timeout_s} s (VISIBILITY_TIMEOUT_S): so long after a crash others wait for "
        "its partitions",
        fine=least <= settings.visibility_timeout_s <= most,
        advice=f"set VISIBILITY_TIMEOUT_S to {least} to {most}: brokers take no other session "
        f"(below {least}, {least} is asked for)",
    )


def _receive_count(settings: Settings) -> Finding:
    return tell(
        "max receive count",
        f"{settings.receive_count_max}; what is received more often is rejected unread. It is counted beside "
        "the group's offsets",
    )
