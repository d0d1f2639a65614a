"""The command `producers send`: the lines of a file, as they are."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from producers.cli.interrupt import Interrupt, InterruptibleStream
from producers.cli.sending import SendOptions, deliver, shared_options
from producers.publishers.lines import LineReading, read_messages
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import BATCH_SIZE_MAX, PublishRun
from producers.publishers.report import SendTally


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", metavar="NAME", help="Each line is a payload of this tenant; with --event-type.")
@click.option("--event-type", metavar="TYPE", help="The event type of these payloads.")
@click.option("--producer", metavar="NAME", help="The producer of these payloads.")
@click.option("--make-ids", is_flag=True, help="Give native events that have no id one, at random.")
@click.option("--raw", is_flag=True, help="Send lines that are not JSON, too, as they are.")
@shared_options
def send(
    *,
    file: BinaryIO,
    tenant: str | None,
    event_type: str | None,
    producer: str | None,
    make_ids: bool,
    raw: bool,
    **shared: Any,  # noqa: ANN401 - the shared options, which Delivery names
) -> None:
    """Send each line of FILE (- is standard input) as one message.

    A line is a whole body, in any format that the processor knows, and is sent as it is, byte for byte:

    \b
    {"id": "o-1", "tenant_id": "acme", "event_type": "order.created", "payload": {...}}
    {"specversion": "1.0", "id": "o-1", "source": "shop", "type": "order.created", "tenantid": "acme",
     "data": {...}}  (on one line)
    {"tenant_id": "acme", "product_sku": "storage", "used_amount": 1.5, "use_unity": "GB"}

    With --tenant and --event-type a line is only the payload; the rest goes into message attributes, with
    a random id made for each line.

    Lines leave in tens: the last few of a pipe that stays open wait for more, or for its end.

    Whether an event is valid is for the processor to say: an unknown tenant is sent. Not sent is a line
    that isn't JSON (but see --raw) or isn't UTF-8 (never); it is told with its number, and the exit code
    is 1.

    An event without an id of its own takes the id that SQS gives its message. Should a reply get lost,
    the retry makes two events of it; --make-ids prevents that. But sending a file again sends new events,
    unless the ids stand in the file.
    """  # noqa: D301 - click's mark for lines to be left as they are
    reading = LineReading(tenant, event_type, producer, raw, make_ids)

    def messages(_publish_run: PublishRun, tally: SendTally, interrupt: Interrupt) -> Iterator[Outgoing]:
        return read_messages(InterruptibleStream(file, interrupt), reading, tally.count_bad_line)

    deliver(SendOptions(**shared), messages, BATCH_SIZE_MAX)


COMMANDS = (send,)
