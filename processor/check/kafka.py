"""Kafka's part of `processor check`: whether we get in, the topic is there, and how far behind the group is.

Nothing is read from the topic, and the group is not joined: that would take partitions from its members.
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
"""What a broker takes for a session, unless it is told otherwise."""


def check_kafka(settings: RunSettings, address: SourceAddress) -> list[Finding]:
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


def _retention(address: SourceAddress, settings: RunSettings) -> Iterator[Finding]:
    """Judge how long the topic keeps what nobody has read, and keys with it, where the broker tells."""
    found = _told(address, ConfigResource(ConfigResource.Type.TOPIC, address.queue))
    retention_s = _seconds(found.get("retention.ms"))
    if retention_s is None:
        yield tell(
            "retention",
            "the broker does not tell it",
            note=True,
            advice=f"keep retention.ms at {RETENTION_S_MIN * 1000} or more: what an outage leaves unread for "
            "longer is deleted, and nobody has its rows",
        )
        yield tell(
            "key retention",
            f"{settings.key_retention_days} days; how long the topic keeps records, the broker does not tell",
            note=True,
            advice="keep KEY_RETENTION_DAYS above it: a group whose offsets are lost reads all of it again",
        )
        return
    yield judge(
        "retention",
        "for ever" if retention_s < 0 else f"{retention_s:.0f} s",
        fine=retention_s < 0 or retention_s >= RETENTION_S_MIN,
        advice=f"raise the topic's retention.ms to {RETENTION_S_MIN * 1000} or more: Kafka deletes what an "
        "outage leaves unread for longer, and nobody has its rows",
    )
    policy = found.get("cleanup.policy", "delete")
    yield judge(
        "compaction",
        f"cleanup.policy={policy}",
        fine="compact" not in policy,
        advice="use cleanup.policy=delete: of several events with one key, compaction keeps only the last",
    )
    # A segment goes as a whole, when the youngest of its records is old enough.
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
        kept += f" (or {bytes_max} bytes a partition, which says nothing of time)"
    more = "" if messages is None or messages >= needed else ", and MESSAGE_RETENTION_DAYS with it"
    return judge(
        "key retention",
        f"{days} days (messages: {'for ever' if messages is None else f'{messages} days'}); the topic keeps "
        f"records {kept}",
        fine=days >= needed,
        advice=f"raise KEY_RETENTION_DAYS to {needed}{more}, or lower the topic's retention.ms: a group that "
        "lost its offsets reads all that the topic keeps, and what `processor retention` has removed by then "
        "would count again; so `processor run` refuses to begin",
    )


def _offsets(onlooker: Consumer, address: SourceAddress, partitions: Collection[int]) -> Iterator[Finding]:
    """Tell where the group has no offset, and how long it keeps those that it has once nobody reads."""
    places = [TopicPartition(address.queue, number) for number in sorted(partitions)]
    try:
        lines = onlooker.committed(places, timeout=_ASK_S_MAX)
    except KafkaException:
        # What is in the way is said of the backlog.
        return
    missing = [str(line.partition) for line in lines if line.offset < 0]
    broker = next(iter(onlooker.list_topics(address.queue, timeout=_ASK_S_MAX).brokers), 0)
    told = _told(address, ConfigResource(ConfigResource.Type.BROKER, str(broker)))
    minutes = told.get("offsets.retention.minutes")
    kept = "the broker does not tell for how long" if minutes is None else f"for {minutes} minutes"
    yield tell(
        "offsets",
        (f"none in partition(s) {listed(missing)}; " if missing else "one in each partition; ")
        + f"kept while the group has members, and {kept} afterwards",
        note=bool(missing) or minutes is None or int(minutes) * 60 < RETENTION_S_MIN,
        advice="without an offset a partition is read from its first record on. Keep the broker's "
        f"offsets.retention.minutes at {RETENTION_S_MIN // 60} or more, and longer than processors ever rest",
    )


def _told(address: SourceAddress, resource: ConfigResource) -> dict[str, str]:
    """Ask for the settings of a topic or a broker; nothing where the broker does not tell."""
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
        f"{settings.visibility_timeout_s} s (VISIBILITY_TIMEOUT_S): so long after a crash others wait for "
        "its partitions",
        fine=least <= settings.visibility_timeout_s <= most,
        advice=f"set VISIBILITY_TIMEOUT_S to {least} to {most}: brokers take no other session "
        f"(below {least}, {least} is asked for)",
    )


def _receive_count(settings: RunSettings) -> Finding:
    return tell(
        "max receive count",
        f"{settings.receive_count_max}; what is received more often is rejected unread. It is counted beside "
        "the group's offsets",
    )
