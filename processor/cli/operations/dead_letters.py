"""processor dlq: list and import dead letters."""

import threading

import click

from processor.cli.output import json_option, print_json, print_rows
from processor.cli.progress import Progress
from processor.cli.signals import stop_at_signals
from processor.runtime.terminal import say
from processor.settings import StoreSettings, ValidationSettings
from processor.wiring import commands

_SHOWN = (
    "delivery_id",
    "sent_at",
    "receive_count",
    "queue",
    "tenant_id",
    "event_type",
    "message_id",
    "size_bytes",
)

_unread = click.option(
    "--unread",
    is_flag=True,
    help="Don't read the bodies: for a message that kills its readers. Who sent it stays unknown.",
)


@click.group()
def dlq() -> None:
    """List and import the messages in the dead-letter queue of SQS_QUEUE_URL.

    SQS moves a message there after too many receives without an outcome. Fix the cause, import the messages
    (they become rejections, reason dead_lettered), then replay these. They keep their delivery ids. The AWS
    redrive assigns new ids: a stored event without an id of its own would count twice.
    """


@dlq.command("list")
@click.option(
    "--limit",
    type=click.IntRange(0, 1000),
    default=20,
    show_default=True,
    help="Show so many at the most; 0 only counts, and receives nothing.",
)
@_unread
@json_option
def dlq_list(limit: int, unread: bool, as_json: bool) -> None:
    """List messages in the dead-letter queue, with their number and claimed senders.

    SQS can't show a message without a receive: each listed message is received, hidden from other consumers
    for up to 30 seconds, and released. Its receive count rises by one, which matters only if the dead-letter
    queue has a RedrivePolicy of its own.
    """
    name, counts, rows = commands.list_dead_letters(ValidationSettings.load(), limit=limit, unread=unread)
    if as_json:
        print_json({"dead_letter_queue": name, "counts": counts, "shown": rows})
        return
    say(f"{name}: " + ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items()))
    if limit:
        shown = [{column: row[column] for column in _SHOWN} for row in rows]
        print_rows(shown, as_json=False, empty="nothing to be received at the moment")
    if rows:
        say("\nOnce the cause is mended: processor dlq import, then processor rejection replay")


@dlq.command("import")
@click.option("--limit", type=click.IntRange(1), help="Import so many at the most; without it, all.")
@click.option(
    "--source",
    "source_name",
    metavar="QUEUE_NAME",
    help="The queue they were moved from. Needed only where SQS doesn't tell and several queues share this "
    "dead-letter queue; where SQS tells, that holds.",
)
@_unread
@json_option
def dlq_import(limit: int | None, source_name: str | None, unread: bool, as_json: bool) -> None:
    """Import dead letters as rejections (reason dead_lettered), then delete them from the dead-letter queue.

    Each rejection has its original queue and delivery id. Messages with an outcome (stored, duplicate or
    rejected) are only deleted. The import is idempotent, crash-safe, and safe beside a running processor or
    another import. Ctrl-C and SIGTERM end it after the current batch (exit codes 130 and 143).
    """
    stop, progress = threading.Event(), Progress()
    with stop_at_signals(stop) as caught:
        name, outcomes, left = commands.import_dead_letters(
            StoreSettings.load(),
            source_name=source_name,
            limit=limit,
            unread=unread,
            stop=stop,
            on_batch=lambda count: progress.say(f"{count} done"),
        )
    remaining = sum(left.values())
    if as_json:
        print_json({"dead_letter_queue": name, "finished": not caught, "outcomes": outcomes, "left": left})
    else:
        say(f"imported: {outcomes.get('rejected', 0)}")
        say(f"known already, so only deleted: {outcomes.get('redelivered', 0)}")
        say(f"still in {name}: {remaining}" + (" (someone may hold them; run it again)" if remaining else ""))
        if outcomes.get("rejected"):
            say(
                "\nThey are rejections now: processor rejection list --reason dead_lettered\n"
                "Once the cause is mended: processor rejection replay --reason dead_lettered"
            )
    if caught:
        say("stopped; what was imported is in the books, and running this again goes on", err=True)
        raise SystemExit(128 + caught[0])


COMMANDS = [dlq]
