"""processor count and processor counter: messages per user."""

import shlex
from pathlib import Path

import click

from processor.cli.output import json_option, print_rows
from processor.cli.paths import NamedPath
from processor.cli.usage.meters import doubtful
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings
from processor.usage.counter import CountSelection
from processor.usage.counter_setup import set_up
from processor.wiring import counting, database


@click.command()
@click.option(
    "--to",
    "directory",
    required=True,
    type=NamedPath(path_type=Path),
    help="The directory for the files; made if it is missing.",
)
@click.option("--tenant", "tenant_id", help="Count this tenant alone; without it, all tenants, added up.")
@click.option(
    "--group", "group_name", default="user_id", show_default=True, help="The name that the meters group by."
)
@click.option(
    "--meter",
    "meters",
    multiple=True,
    help="Go by this meter; repeatable. Without it, by the one that there is for each event type.",
)
@click.option(
    "--run", "run_id", help="Count what one `run --this-run` has stored that ended before it wrote its files."
)
@json_option
def count(
    *,
    directory: Path,
    tenant_id: str | None,
    group_name: str,
    meters: tuple[str, ...],
    run_id: str | None,
    as_json: bool,
) -> None:
    """Write the message count of each user, one file per event type, such as created.json {"u1": 3}.

    The counts come from the meters that count messages without windows, grouped by --group. A message counts
    once, however often it was delivered; voided messages do not count. Users are sorted by code point; users
    with the count 0 are omitted. All files are of one snapshot, and each is replaced atomically; other files
    in the directory stay unchanged.

    A file is named after its event type: small letters, digits, '_', '-' and '.' stay, each other byte of its
    UTF-8 becomes %xx (capital letters too, for case-insensitive file systems), and so does the first
    character if it is a dot or the name is a Windows device (con, nul, ...). Names of more than 200
    characters are cut to 100, followed by '%~' and the SHA-256 of the event type.
    """
    selection = CountSelection(tenant_id, group_name, meters, run_id)
    counts = counting.count(DatabaseSettings.load(), directory, selection)
    if counts.tenants > 1:
        say(
            f"note: the counts of {counts.tenants} tenants are added up; --tenant gives one tenant's",
            err=True,
        )
    rows = [
        {
            "event_type": file.event_type,
            "file": str(directory / file.file),
            "users": file.users,
            "messages": file.messages,
        }
        for file in counts.files
    ]
    print_rows(rows, as_json=as_json, empty="nothing is counted")


@click.group("counter")
def counter() -> None:
    """Set up counting of unique messages per user and event type (docs/howto/counter.md)."""


@counter.command("setup")
@click.option(
    "--tenant", "tenant_id", required=True, help="The tenant of the events; added if it is missing."
)
@click.option(
    "--types",
    default="created,updated,deleted",
    show_default=True,
    metavar="TYPE,...",
    help="The event types to count.",
)
@click.option("--shared", is_flag=True, help="Make new schemas and meters for all tenants, not for this one.")
def counter_setup(tenant_id: str, types: str, *, shared: bool) -> None:
    """Create the tenant, and a schema and a meter for each event type, if they are missing.

    Payloads have a user_id, and ids are unique per user and event type. Existing tenants, schemas and meters
    are used unchanged, so the command can be repeated, with more event types too.
    """
    event_types = [name for name in map(str.strip, types.split(",")) if name]
    if not event_types:
        raise click.UsageError("--types: expected at least one event type")
    with database(DatabaseSettings.load()) as connection:
        done = set_up(connection, tenant_id, event_types, shared=shared)
    say(f"made: {', '.join(done.made) or 'nothing; all of it is there'}")
    for event_type in done.unscoped:
        say(
            f"warning: event type {event_type} had a schema already, and its ids are not unique for a "
            "user alone: the same id of two users is an id_conflict",
            err=True,
        )
    for doubt in done.doubts:
        say(f"warning: {doubtful(doubt)}", err=True)
    say(f"next: processor run --until-idle 5 --count-to counts --tenant {shlex.quote(tenant_id)}")


COMMANDS = [count, counter]
