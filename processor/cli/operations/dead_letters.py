"""What waits in the dead-letter queue, and how it comes into the books: processor dlq."""

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
    """Look into the dead-letter queue of SQS_QUEUE_URL, and bring what lies there into the books.

    SQS moves a message there after too many receives without an outcome. Mend what killed them, import them
    (they become rejections, reason dead_lettered), then replay those. They keep their delivery ids on this
    way. AWS's own redrive gives new ones: an event without an id of its own that was stored before would
    count twice.
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
    """Show what waits there: how many, and some of them with who they claim to be from.

    SQS has no way to look without receiving: each one shown is received, hidden from others for up to 30
    seconds, and given back. Its receive count rises by one, which matters only where the dead-letter queue
    has a RedrivePolicy of its own.
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
    """Bring what waits there into the table of rejections, reason dead_lettered, then delete it from there.

    Each stands under the queue it came from and its unchanged delivery id. What was stored, noted as a
    duplicate or rejected before is only deleted. Safe to repeat, to kill, and beside a running processor or
    another import. Ctrl-C and SIGTERM end it after the batch under way (exit codes 130 and 143).
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
