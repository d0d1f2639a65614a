"""The Kafka checks of `processor check`: login, topic, lag and offsets of the group, retention.

No record is read, and the check does not join the group: a join would take partitions from its members.
"""

import math
from collections.abc import Collection, Iterator, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # without __all__

from processor.brokers.kafka import NO_TOPIC, REFUSED, an_onlooker, configuration, lag_of, name_of, place
from processor.brokers.source_url import SourceAddress
from processor.check import Finding, judge, listed, tell
from processor.check.queue import RETENTION_S_MIN
from processor.settings import DAYS_MAX, RunSettings

_ASK_S_MAX = 3.0
_DAY_S = 24 * 3600
_SESSION_S = (6, 1800)
"""The session time-outs in seconds that brokers accept by default."""


def check_kafka(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    """Check the topic of SOURCE_URL and the offsets of its group."""
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
                f"{address.queue}, {len(topic.partitions)} partition(s), group {address.group}",
                note=len(topic.partitions) == 1,
                advice="with one partition only one process consumes; any other process is idle",
            ),
            *_backlog(onlooker, address),
            *_offsets(onlooker, address, topic.partitions),
            *_retention(address, settings),
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
            advice="put a valid user and password into SOURCE_URL, and the SASL mechanism into ?sasl=",
        )
    return Finding(
        "queue",
        fine=False,
        found=f"Kafka can't be reached at {place(address)}: {name}",
        advice="check SOURCE_URL and the network. TLS needs kafkas://, a login needs USER:PASSWORD@. The "
        "processor retries until then",
        unreachable=True,
    )


def _refused(address: SourceAddress, name: str) -> Finding:
    if name in NO_TOPIC:
        return judge(
            "queue",
            f"Kafka has no topic {address.queue}",
            fine=False,
            advice="create it (kafka-topics --create) with at least one partition per planned process, or "
            "correct SOURCE_URL; the processor creates no topic, and retries until then",
        )
    return judge(
        "queue",
        f"Kafka refuses access to {address.queue}: {name}",
        fine=False,
        advice=f"grant this user Describe and Read on the topic, and Read on the group {address.group}",
    )


def _backlog(onlooker: Consumer, address: SourceAddress) -> Iterator[Finding]:
    try:
        lag: Mapping[int, int] = lag_of(onlooker, address.queue, _ASK_S_MAX)
    except KafkaException as error:
        yield judge(
            "backlog",
            f"unknown: {name_of(error)}",
            fine=False,
            advice=f"grant this user Read on the group {address.group}",
        )
        return
    behind = [f"{number}: {count}" for number, count in lag.items() if count]
    yield tell(
        "backlog",
        f"lag: {sum(lag.values())} message(s)" + (f"; by partition {listed(behind)}" if behind else ""),
        note=bool(behind),
        advice="set an alert on a growing lag (processor_queue_messages, state visible)",
    )


def _retention(address: SourceAddress, settings: RunSettings) -> Iterator[Finding]:
    """Judge the topic's retention, and the key retention by it, if the broker discloses its settings."""
    found = _told(address, ConfigResource(ConfigResource.Type.TOPIC, address.queue))
    retention_s = _seconds(found.get("retention.ms"))
    if retention_s is None:
        yield tell(
            "retention",
            "unknown: the broker does not disclose retention.ms",
            note=True,
            advice=f"keep retention.ms at {RETENTION_S_MIN * 1000} or more: records that an outage leaves "
            "unread for longer are deleted, and are lost",
        )
        yield tell(
            "key retention",
            f"{settings.key_retention_days} days; the topic's retention is unknown",
            note=True,
            advice="keep KEY_RETENTION_DAYS above the topic's retention: a group that loses its offsets "
            "reads all records again",
        )
        return
    yield judge(
        "retention",
        "for ever" if retention_s < 0 else f"{retention_s:.0f} s",
        fine=retention_s < 0 or retention_s >= RETENTION_S_MIN,
        advice=f"raise the topic's retention.ms to {RETENTION_S_MIN * 1000} or more: Kafka deletes records "
        "that an outage leaves unread for longer, and they are lost",
    )
    policy = found.get("cleanup.policy", "delete")
    yield judge(
        "compaction",
        f"cleanup.policy={policy}",
        fine="compact" not in policy,
        advice="use cleanup.policy=delete: compaction keeps only the last of several events with one key",
    )
    # Kafka deletes whole segments, once the newest record is old enough.
    segment_s = _seconds(found.get("segment.ms")) or 0
    yield _key_retention(
        settings,
        math.inf if retention_s < 0 or policy == "compact" else retention_s + segment_s,
        bytes_max=found.get("retention.bytes", "-1"),
    )


def _key_retention(settings: RunSettings, kept_s: float, *, bytes_max: str) -> Finding:
    days, messages = settings.key_retention_days, settings.message_retention_days
    needed = min(DAYS_MAX, math.ceil(min(kept_s, DAYS_MAX * _DAY_S) / _DAY_S))
    kept = "for ever" if kept_s == math.inf else f"for up to {needed} days"
    if bytes_max != "-1":
        kept += f" (or {bytes_max} bytes per partition, which implies no time)"
    more = "" if messages is None or messages >= needed else ", and MESSAGE_RETENTION_DAYS with it"
    return judge(
        "key retention",
        f"{days} days (messages: {'for ever' if messages is None else f'{messages} days'}); the topic keeps "
        f"records {kept}",
        fine=days >= needed,
        advice=f"raise KEY_RETENTION_DAYS to {needed}{more}, or lower the topic's retention.ms: a group that "
        "loses its offsets reads all records again, and would count those twice that `processor retention` "
        "has removed; so `processor run` refuses to start",
    )


def _offsets(onlooker: Consumer, address: SourceAddress, partitions: Collection[int]) -> Iterator[Finding]:
    """Name the partitions without an offset, and how long offsets are kept without active members."""
    places = [TopicPartition(address.queue, number) for number in sorted(partitions)]
    try:
        lines = onlooker.committed(places, timeout=_ASK_S_MAX)
    except KafkaException:
        # The finding `backlog` reports the cause.
        return
    missing = [str(line.partition) for line in lines if line.offset < 0]
    broker = next(iter(onlooker.list_topics(address.queue, timeout=_ASK_S_MAX).brokers), 0)
    told = _told(address, ConfigResource(ConfigResource.Type.BROKER, str(broker)))
    minutes = told.get("offsets.retention.minutes")
    kept = "for an unknown time" if minutes is None else f"for {minutes} minutes"
    yield tell(
        "offsets",
        (f"none in partition(s) {listed(missing)}; " if missing else "one in each partition; ")
        + f"kept while the group has members, and {kept} afterwards",
        note=bool(missing) or minutes is None or int(minutes) * 60 < RETENTION_S_MIN,
        advice="a partition without an offset is read from its first record. Keep the broker's "
        f"offsets.retention.minutes at {RETENTION_S_MIN // 60} or more, and above the longest downtime",
    )


def _told(address: SourceAddress, resource: ConfigResource) -> dict[str, str]:
    """Query the settings of a topic or a broker; empty if the broker does not disclose them."""
    admin = AdminClient(configuration(address))
    asked = admin.describe_configs([resource], request_timeout=_ASK_S_MAX)
    try:
        [found] = [answer.result(_ASK_S_MAX * 2) for answer in asked.values()]
    except (KafkaException, TimeoutError):
        return {}
    return {name: str(entry.value) for name, entry in found.items() if entry.value is not None}


def _seconds(milliseconds: str | None) -> float | None:
    try:
        return None if milliseconds is None else int(milliseconds) / 1000
    except ValueError:
        return None


def _session(settings: RunSettings) -> Finding:
    least, most = _SESSION_S
    return judge(
        "session",
        f"{settings.visibility_timeout_s} s (VISIBILITY_TIMEOUT_S): the wait after the crash of a member",
        fine=least <= settings.visibility_timeout_s <= most,
        advice=f"set VISIBILITY_TIMEOUT_S to {least} to {most}: brokers accept no other session time-out "
        f"(below {least}, {least} is used)",
    )


def _receive_count(settings: RunSettings) -> Finding:
    return tell(
        "max receive count",
        f"{settings.receive_count_max}; messages received more often are rejected unread. The count is "
        "stored with the group's offsets",
    )
