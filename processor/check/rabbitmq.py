"""RabbitMQ's part of `processor check`: whether we get in and the queue is there, and what AMQP can't tell.

Nothing is taken from the queue, and nothing is declared: each hand-over counts as a receive of a message.
"""

from processor.brokers.rabbitmq import FAILED, Ended, count_waiting, ended
from processor.brokers.source_url import SourceAddress
from processor.check import Finding, judge, tell
from processor.settings import KEY_DAYS_ADVISED, RunSettings

_DELIVERY_LIMIT = 20
"""After so many returns RabbitMQ 4 takes a message out of a quorum queue, unless it is told otherwise."""

_MAKE = (
    "it is the operator's to make: a durable quorum queue, such as `rabbitmqadmin declare queue name={queue} "
    'durable=true arguments=\'{{"x-queue-type": "quorum"}}\'`, and what binds it to its exchange'
)


def check_rabbitmq(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    """Look at the queue of SOURCE_URL."""
    try:
        answer = count_waiting(address).method
    except FAILED as error:
        return [_refusal(ended(error, address), address)]
    waiting, consumers = int(answer.message_count), int(answer.consumer_count)
    return [
        tell("queue", f"{address.queue}, in the vhost {address.vhost} of RabbitMQ"),
        tell("backlog", f"{waiting} waiting, {consumers} consumer(s); what they hold, AMQP does not tell"),
        tell(
            "queue type",
            "AMQP does not tell it, nor whether it is durable",
            note=True,
            advice="see `rabbitmqctl list_queues name type durable policy`: a durable quorum queue outlives "
            "a node; a classic one is lost with it",
        ),
        _receive_count(settings),
        tell(
            "acknowledgements",
            "RabbitMQ takes back what is not acknowledged within its consumer_timeout (30 minutes by itself)",
            note=settings.database_timeout_s * 2 > 30 * 60,
            advice="lower DATABASE_TIMEOUT_S: a save may take longer than that",
        ),
        tell(
            "key retention",
            f"{settings.key_retention_days} days; for how long the queue keeps messages, AMQP does not tell",
            note=settings.key_retention_days < KEY_DAYS_ADVISED,
            advice=f"raise KEY_RETENTION_DAYS to {KEY_DAYS_ADVISED} or more, and above how long processors "
            "ever rest: what was stored and not acknowledged waits for that time, and counts twice without "
            "its key",
        ),
        tell(
            "ids",
            "message_id with a digest of the message names a delivery",
            note=True,
            advice="let events have an id of their own or this property: without one each copy counts, a "
            "redelivery waits, and a kill may mix up equal events; processor_unnamed_total counts them",
        ),
    ]


def _refusal(why: Ended, address: SourceAddress) -> Finding:
    if why.refused:
        return judge("queue", why.words, fine=False, advice="put a valid user and password into SOURCE_URL")
    if why.missing:
        return judge("queue", why.words, fine=False, advice=_MAKE.format(queue=address.queue))
    if why.answered:
        return judge(
            "queue",
            why.words,
            fine=False,
            advice="give this user the vhost and the right to read the queue (rabbitmqctl set_permissions)",
        )
    return Finding(
        "queue",
        fine=False,
        found=why.words,
        advice="is SOURCE_URL right, and does the network let us out? The processor waits until then",
        unreachable=True,
    )


def _receive_count(settings: RunSettings) -> Finding:
    return judge(
        "max receive count",
        f"{settings.receive_count_max}; what is received more often is rejected unread",
        fine=settings.receive_count_max < _DELIVERY_LIMIT,
        advice=f"lower RECEIVE_COUNT_MAX below {_DELIVERY_LIMIT}, or raise the queue's x-delivery-limit "
        "above it: after so many, RabbitMQ 4 takes a message away before we keep it",
    )
