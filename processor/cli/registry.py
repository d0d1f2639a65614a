"""Who may send what: processor tenant, processor schema."""

from typing import Any, BinaryIO

import click
import orjson

from processor import reader
from processor import registry as registry_changes
from processor.cli.output import json_option, print_json, print_rows
from processor.errors import SettingsError
from processor.settings import Settings
from processor.wiring import database


@click.group()
def tenant() -> None:
    """Tenants: add, list, suspend, resume. A change holds for every event saved after it."""


@tenant.command("add")
@click.argument("tenant_ids", metavar="TENANT_ID...", nargs=-1, required=True)
@click.option("--name", help="What people call it, where it is one; the id if not given.")
def tenant_add(tenant_ids: tuple[str, ...], name: str | None) -> None:
    """Add tenants, all or none of them; those that exist are left as they are."""
    if name is not None and len(tenant_ids) > 1:
        raise click.UsageError(f"--name is one tenant's, and {len(tenant_ids)} are given; leave it out")
    with database(Settings.load()) as connection, connection.transaction():
        new = [registry_changes.add_tenant(connection, tenant_id, name) for tenant_id in tenant_ids]
    if len(tenant_ids) == 1:
        click.echo(f"tenant {tenant_ids[0]} {'added' if new[0] else 'exists already; left as it is'}")
    else:
        click.echo(f"{sum(new)} tenants added, {new.count(False)} exist already; left as they are")


@tenant.command("list")
@json_option
def tenant_list(as_json: bool) -> None:
    """List the tenants."""
    with database(Settings.load()) as connection:
        rows = reader.tenants(connection)
    print_rows(rows, as_json=as_json, empty="no tenants yet; add one: processor tenant add TENANT_ID")


@tenant.command("suspend")
@click.argument("tenant_id")
def tenant_suspend(tenant_id: str) -> None:
    """Reject the events of a tenant from now on (tenant_suspended); they are kept, and can be replayed."""
    with database(Settings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "suspended")
    click.echo(f"tenant {tenant_id} is suspended; its events become rejections (tenant_suspended)")


@tenant.command("resume")
@click.argument("tenant_id")
def tenant_resume(tenant_id: str) -> None:
    """Take the events of a tenant again."""
    with database(Settings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "active")
    click.echo(
        f"tenant {tenant_id} is active; what was rejected meanwhile comes back by: "
        f"processor rejection replay --tenant {tenant_id} --reason tenant_suspended"
    )


@click.group()
def schema() -> None:
    """Event schemas: publish, list, show. A published version is never changed; publish the next one."""


@schema.command("publish")
@click.argument("event_type")
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", "tenant_id", help="Make it this tenant's own; without it, it is shared by all.")
@click.option(
    "--id-scope",
    "id_scope",
    metavar="POINTER",
    multiple=True,
    help="Ids are unique within this value of the payload alone, such as /user_id; repeatable.",
)
def schema_publish(event_type: str, file: BinaryIO, tenant_id: str | None, id_scope: tuple[str, ...]) -> None:
    """Publish FILE (or -) as the next version of an event type's JSON Schema, and the event type if new.

    The id of an event is unique within its tenant and producer. Where producers number their events anew for
    each user, say, tell so with the first schema: with --id-scope /user_id the same id of two users, or of
    another event type, is two messages. It can't be changed later, since messages are known by it.
    """
    definition = _json_of(file)
    with database(Settings.load()) as connection:
        version = registry_changes.publish_schema(connection, event_type, definition, tenant_id, id_scope)
    click.echo(f"published version {version} of {event_type} ({tenant_id or 'shared'})")


@schema.command("list")
@click.option("--event-type", help="Only of this event type.")
@json_option
def schema_list(event_type: str | None, as_json: bool) -> None:
    """List the versions of all schemas."""
    with database(Settings.load()) as connection:
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
    """Print the definition of one version; with --json everything that is known of it."""
    with database(Settings.load()) as connection:
        row = reader.schema(connection, event_type, tenant_id, version)
    print_json(row if as_json else row["definition"])


def _json_of(file: BinaryIO) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return orjson.loads(file.read())
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"{getattr(file, 'name', 'the input')}: not JSON: {error}") from None


COMMANDS = [tenant, schema]
