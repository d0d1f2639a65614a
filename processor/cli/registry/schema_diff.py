"""processor schema diff."""

from pathlib import Path
from typing import BinaryIO, cast

import click
import psycopg

from processor.cli.output import json_option, print_json
from processor.errors import NotFound
from processor.operations import compat
from processor.runtime.escaping import escaped
from processor.runtime.terminal import fit
from processor.schemas.compare.comparing import Version, compare
from processor.schemas.compiling import compile_schema
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import read_schema, schema_options
from processor.schemas.schema_text import schema_text
from processor.settings import DatabaseSettings
from processor.wiring import database


@click.command("diff")
@click.argument("event_type")
@click.argument("old")
@click.argument("new")
@schema_options
@click.option("--tenant", "tenant_id", help="The tenant's own versions; without it, the shared ones.")
@json_option
def schema_diff(
    event_type: str, old: str, new: str, *, how: HowToRead, tenant_id: str | None, as_json: bool
) -> None:
    """Compare two versions of a schema: additions, removals, and narrowed or widened rules.

    OLD and NEW are versions of the event type, such as 3, or latest. NEW may also be an unpublished FILE
    (or - for standard input), whose name is not a number.

    backward: NEW accepts every payload that OLD accepts. forward: NEW accepts no payload that OLD refuses. A
    payload that proves the contrary is printed. The exit code is 0 whatever changed.
    """
    with database(DatabaseSettings.load()) as connection:
        before = _version(connection, event_type, old, tenant_id)
        if new == "latest" or new.isdecimal():
            after = _version(connection, event_type, new, tenant_id)
        else:
            file = cast("BinaryIO", click.File("rb").convert(new, None, click.get_current_context()))
            definition = read_schema(file, how)
            compile_schema(definition, formats=how.formats)
            after = Version(Path(new).name, schema_text(definition), how.formats)
    found = compare(before, after)
    verdicts = {"backward": found.backward, "forward": found.forward}
    if as_json:
        print_json(
            {
                "event_type": event_type,
                "old": before.name,
                "new": after.name,
                "differences": [
                    {name: getattr(one, name) for name in ("pointer", "kind", "words", "narrows", "widens")}
                    for one in found.differences
                ],
            }
            | {name: {"answer": one.answer, "example": one.example} for name, one in verdicts.items()}
        )
        return
    click.echo(escaped(f"{event_type}: {before.name} → {after.name}"))
    for one in found.differences:
        click.echo(fit(escaped(f"  {one.kind:8} {one}"), " " * 11))
    if not found.differences:
        click.echo("  no difference")
    for name, verdict in verdicts.items():
        click.echo(fit(escaped(f"{name}: {compat.told(name, verdict, before.name, after.name)}"), "  "))


def _version(
    connection: psycopg.Connection[tuple[object, ...]], event_type: str, which: str, tenant_id: str | None
) -> Version:
    if which.isdecimal():
        return compat.version(connection, event_type, tenant_id, min(int(which), 2**31 - 1))
    if which != "latest":
        raise click.UsageError(f"OLD: expected a version, such as 3, or latest, and not {which!r}")
    if found := compat.latest(connection, event_type, tenant_id):
        return found
    raise NotFound(
        f"event type {event_type!r} has no schema yet; `processor schema list` shows what there is"
    )
