"""The RabbitMQ checks of `processor check`: login, queue, and notes on properties that AMQP does not report.

No message is consumed, since each delivery raises the receive count, and no queue is declared.
"""

from processor.brokers.rabbitmq import FAILED, Ended, count_waiting, ended
from processor.brokers.source_url import SourceAddress
from processor.check import Finding, judge, tell
from processor.settings import KEY_DAYS_ADVISED, RunSettings

_DELIVERY_LIMIT = 20
"""RabbitMQ 4's default x-delivery-limit: it drops a message of a quorum queue after so many returns."""

_MAKE = (
    "create a durable quorum queue, such as `rabbitmqadmin declare queue name={queue} "
    'durable=true arguments=\'{{"x-queue-type": "quorum"}}\'`, and bind it to its exchange'
)


def check_rabbitmq(settings: RunSettings, address: SourceAddress) -> list[Finding]:
    """Check the queue of SOURCE_URL."""
    try:
        answer = count_waiting(address).method
    except FAILED as error:
        return [_refusal(ended(error, address), address)]
    waiting, consumers = int(answer.message_count), int(answer.consumer_count)
    return [
        tell("queue", f"{address.queue}, in the vhost {address.vhost} of RabbitMQ"),
        tell(
            "backlog",
            f"{waiting} ready, {consumers} consumer(s); AMQP does not report unacknowledged messages",
        ),
        tell(
            "queue type",
            "unknown: AMQP reports neither type nor durability",
            note=True,
            advice="run `rabbitmqctl list_queues name type durable policy`: a durable quorum queue survives "
            "the loss of a node; a classic queue does not",
        ),
        _receive_count(settings),
        tell(
            "acknowledgements",
            "RabbitMQ requeues messages not acknowledged within consumer_timeout (30 minutes by default)",
            note=settings.database_timeout_s * 2 > 30 * 60,
            advice="lower DATABASE_TIMEOUT_S: a save may take longer than consumer_timeout",
        ),
        tell(
            "key retention",
            f"{settings.key_retention_days} days; AMQP does not report the queue's retention",
            note=settings.key_retention_days < KEY_DAYS_ADVISED,
            advice=f"raise KEY_RETENTION_DAYS to {KEY_DAYS_ADVISED} or more, and above the longest "
            "downtime of processors: messages that are stored but not acknowledged are redelivered after it, "
            "and count twice without their keys",
        ),
        tell(
            "ids",
            "message_id and a digest of the message identify a delivery",
            note=True,
            advice="let producers set an event id or the property message_id: without both each copy counts, "
            "a redelivery is delayed, and a crash may mix up equal events (processor_unnamed_total)",
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
            advice="grant this user the vhost and read permission on the queue (rabbitmqctl set_permissions)",
        )
    return Finding(
        "queue",
        fine=False,
        found=why.words,
        advice="check SOURCE_URL and the network. The processor retries until then",
        unreachable=True,
    )


def _receive_count(settings: RunSettings) -> Finding:
    return judge(
        "max receive count",
        f"{settings.receive_count_max}; messages received more often are rejected unread",
        fine=settings.receive_count_max < _DELIVERY_LIMIT,
        advice=f"lower RECEIVE_COUNT_MAX below {_DELIVERY_LIMIT}, or raise the queue's x-delivery-limit "
        "above it: otherwise RabbitMQ 4 drops a message before the processor can store it as a rejection",
    )
