"""processor schema: the schemas of event types."""

from typing import BinaryIO

import click
import msgspec

from processor.cli.output import json_option, json_text, print_json, print_json_text, print_rows
from processor.cli.registry.schema_diff import schema_diff
from processor.cli.registry.schema_infer import schema_infer
from processor.cli.registry.schema_lint import check_by_linter, schema_lint
from processor.cli.registry.schema_trial import run_trial, schema_test
from processor.devstack.seed import sample as sample_of
from processor.devstack.seed import samples
from processor.operations import reader
from processor.operations import registry as registry_changes
from processor.runtime.terminal import say
from processor.schemas.compare.comparing import COMPATS
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import read_schema, schema_options
from processor.settings import DatabaseSettings
from processor.wiring import database


@click.group()
def schema() -> None:
    """Publish, list and test event schemas. A published version never changes; publish the next one."""


schema.add_command(schema_lint)
schema.add_command(schema_test)
schema.add_command(schema_infer)
schema.add_command(schema_diff)


@schema.command("publish")
@click.argument("event_type")
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--sample", type=click.Choice(samples()), help="Publish this sample schema of ours, instead of FILE."
)
@schema_options
@click.option("--dry-run", is_flag=True, help="Publish nothing: try it, as schema test does.")
@click.option("--tenant", "tenant_id", help="Publish it for this tenant alone; without it, for all tenants.")
@click.option(
    "--strict",
    is_flag=True,
    help="Publish nothing where `schema lint` has a warning; the exit code is 3 then.",
)
@click.option(
    "--id-scope",
    "id_scope",
    metavar="POINTER",
    multiple=True,
    help="Ids are unique within this value of the payload alone, such as /user_id; repeatable.",
)
@click.option(
    "--compat",
    type=click.Choice(COMPATS),
    help="What is asked of this version and all next ones of the event type; none at first.",
)
@click.option("--breaking", is_flag=True, help="Publish this version though it breaks what --compat asks.")
@json_option
def schema_publish(
    event_type: str,
    *,
    file: BinaryIO | None,
    sample: str | None,
    how: HowToRead,
    strict: bool,
    dry_run: bool,
    tenant_id: str | None,
    id_scope: tuple[str, ...],
    compat: str | None,
    breaking: bool,
    as_json: bool,
) -> None:
    """Publish FILE (or -), or a sample, as the next version of an event type's JSON Schema.

    A new event type is added.

    The id of an event is unique within its tenant and producer. If producers number events per user, set the
    scope with the first schema: with --id-scope /user_id, the same id of two users, or of two event types,
    means two messages. The scope can't be changed later, since it is part of the messages' keys.

    With --compat backward, a version must accept every payload that the previous version accepted (old
    producers keep working); with forward it accepts no payload that the previous version refused (old
    consumers see nothing new); full means both. The mode is stored with the event type. A version that breaks
    it, or can't be proven to keep it, is refused unless --breaking is given. A tenant's first own version is
    compared with the latest shared one. Schemas inserted by psql are not compared.
    """
    if file is not None and sample is None:
        definition = read_schema(file, how)
    elif sample is not None and file is None:
        definition = sample_of(sample)
    else:
        raise click.UsageError(f"expected either FILE or --sample NAME, one of {', '.join(samples())}")
    check_by_linter(definition, how, strict=strict)
    if dry_run:
        run_trial(
            event_type,
            definition,
            how=how,
            tenant_id=tenant_id,
            id_scope=id_scope,
            compat="none" if breaking else compat,
            as_json=as_json,
        )
    with database(DatabaseSettings.load()) as connection:
        version = registry_changes.publish_schema(
            connection,
            event_type,
            definition,
            tenant_id,
            id_scope,
            formats=how.formats,
            compat=compat,
            breaking=breaking,
        )
    if as_json:
        print_json({"event_type": event_type, "tenant_id": tenant_id, "version": version})
    else:
        say(f"published version {version} of {event_type} ({tenant_id or 'shared'})")


@schema.command("list")
@click.option("--event-type", help="Only of this event type.")
@json_option
def schema_list(event_type: str | None, as_json: bool) -> None:
    """List the versions of all schemas."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.schemas(connection, event_type)
    if not as_json:
        rows = [row | {"id_scope": " ".join(row["id_scope"]) or None} for row in rows]
    which = f" of event type {event_type!r}" if event_type else ""
    print_rows(
        rows,
        as_json=as_json,
        empty=f"no schemas{which}; publish one: processor schema publish EVENT_TYPE FILE",
    )


@schema.command("show")
@click.argument("event_type")
@click.option("--tenant", "tenant_id", help="The tenant's own; without it, the shared one.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="The latest if not given.")
@json_option
def schema_show(event_type: str, tenant_id: str | None, version: int | None, as_json: bool) -> None:
    """Print the definition of one version; with --json, its metadata too."""
    with database(DatabaseSettings.load()) as connection:
        row = reader.schema(connection, event_type, tenant_id, version)
    definition = row["definition"]
    if as_json:
        definition = json_text(row | {"definition": msgspec.Raw(definition.encode())})
    print_json_text(definition)


COMMANDS = [schema]
