"""Faults of a FIFO queue: each group is committed in the order of sending, in every case."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from processor.sources.sqs.source import SqsSource
from processor.wire.manifest import ManifestWriter
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun
from producers.publishers.sqs import SqsPublisher
from tests.chaos.field import Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.sqs_outages import while_sqs
from tests.chaos.traffic.extra_events import an_extra_event
from tests.chaos.traffic.interceptors import lose_reply

_QUEUE = "orders.fifo"
_PLACES = (2, 3)
"""Who works on the FIFO queue, each with a client of its own; the others go on with the field's."""

_GROUPS, _EACH = 10, 20

_ORDER = """
SELECT split_part(message_id, '/', 1), message_id, pg_xact_commit_timestamp(xmin)
FROM message WHERE queue = %s ORDER BY message_id
"""


def keep_order(field: Field) -> None:
    """Kill the two that work on a FIFO queue, and lose what they are told, while groups are sent to it."""
    field.sqs.client().create_queue(
        QueueName=_QUEUE, Attributes={"FifoQueue": "true", "VisibilityTimeout": "4"}
    )
    url = field.sqs.queue_url(_QUEUE)
    clients = ("lean", "boto3")
    field.fleet.own = {
        place: {"SQS_QUEUE_URL": url, "SQS_CLIENT": name}
        for place, name in zip(_PLACES, clients, strict=True)
    }
    for place in _PLACES:
        field.fleet.kill(place)
    source = SqsSource(field.sqs.client(), url, _QUEUE, visibility_timeout_s=1)
    manifest = field.load.manifest.with_name("fifo.jsonl")
    field.load.more_manifests.append(manifest)
    with ManifestWriter(manifest) as writer:
        for number in range(field.rounds):
            publish_run = PublishRun(SqsPublisher(field.sqs.client(), url), writer, wait_s_max=5)
            for receipt in publish_run.publish(_in_groups(field, number)):
                if not isinstance(receipt, AcceptedMessage):
                    raise ScenarioFailed(f"the FIFO queue refused a message: {receipt.code}")
                field.load.sent.note(receipt)
            with while_sqs(field, lose_reply, share=0.2):
                for _ in range(3):
                    field.pause(0.3, 1.5)
                    field.fleet.kill(field.chance.choice(_PLACES))
                    field.faults += 1
    field.wait_until(lambda: not sum(source.depth().values()), "the FIFO queue is empty", wait_s=90)
    _demand_order(field)


def _in_groups(field: Field, number: int) -> Iterator[Outgoing]:
    """Some events of each group, those of all groups mixed, numbered within the group."""
    for place in range(number * _EACH, (number + 1) * _EACH):
        for group in range(_GROUPS):
            event = an_extra_event(field.chance, f"g{group}/{place:05}")
            yield replace(event, group=f"g{group}")


def _demand_order(field: Field) -> None:
    with field.admin() as connection:
        rows = connection.execute(_ORDER, [_QUEUE]).fetchall()
    expected = field.rounds * _GROUPS * _EACH
    if len(rows) != expected:
        raise ScenarioFailed(f"{len(rows)} messages of the FIFO queue are stored; expected {expected}")
    for (group, _, committed_at), (next_group, message_id, next_committed_at) in pairwise(rows):
        if group == next_group and next_committed_at < committed_at:
            raise ScenarioFailed(f"{message_id} was committed before what was sent before it in its group")


SCENARIOS = [
    Scenario("order within a group", "FIFO", keep_order, rounds=6, rounds_short=1, processes=4, rate=50),
]
