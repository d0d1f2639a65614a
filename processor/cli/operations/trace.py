"""processor trace."""

import click

from processor.cli.errors import Exit
from processor.cli.output import json_option, print_json, print_table
from processor.operations import reader
from processor.runtime.terminal import fit, say
from processor.settings import DatabaseSettings
from processor.wiring import database


@click.command()
@click.argument("message_id")
@click.option("--tenant", "tenant_id", help="Only this tenant's; without it, all tenants are searched.")
@json_option
def trace(message_id: str, tenant_id: str | None, as_json: bool) -> None:
    """Find the outcome of an event: message, duplicate, rejection, or never seen (exit code 1).

    MESSAGE_ID is the producer's id of the event, or the queue's id of a delivery: the MessageId of SQS, or
    with RabbitMQ the property message_id.
    """
    with database(DatabaseSettings.load()) as connection:
        places = reader.trace(connection, message_id, tenant_id)
    if as_json:
        print_json({"message_id": message_id, "tenant_id": tenant_id, "found": places})
    elif places:
        print_table(
            ["where", "at", "tenant", "message id", "producer", "queue", "delivery id", "what"],
            [
                (
                    place["place"],
                    place["at"],
                    place["tenant_id"],
                    place["message_id"],
                    place["producer"],
                    place["queue"],
                    place["delivery_id"],
                    place["what"],
                )
                for place in places
            ],
        )
    else:
        said = (
            f"{message_id}: never seen. It may still be queued (processor audit counts that), or this queue "
            "never accepted it, or it was rejected before its id could be read (processor rejection list), "
            "or it was removed as old (processor retention)."
        )
        say(fit(said))
    raise SystemExit(Exit.FINE if places else Exit.FAILED)


COMMANDS = [trace]
