"""Who may send what: processor tenant, processor schema."""

from typing import Any, BinaryIO, TextIO

import click

from processor import reader
from processor import registry as registry_changes
from processor.cli.output import json_option, print_json, print_rows
from processor.devstack.seed import sample as sample_of
from processor.devstack.seed import samples
from processor.errors import SettingsError
from processor.plain_names import is_plain, quoted
from processor.settings import Settings
from processor.terminal import say
from processor.validation.schema_text import schema_value
from processor.wiring import database


@click.group()
def tenant() -> None:
    """Tenants: add, list, suspend, resume. A change holds for every event saved after it."""


@tenant.command("add")
@click.argument("tenant_id", required=False)
@click.option("--name", help="What people call it; the id if not given.")
@click.option(
    "--file", type=click.File(encoding="utf-8"), help="Add those in FILE (or -), one id a line, all or none."
)
def tenant_add(tenant_id: str | None, name: str | None, file: TextIO | None) -> None:
    """Add a tenant, or those of a file; one that exists is left as it is."""
    if (tenant_id is None) == (file is None) or (name is not None and file is not None):
        raise click.UsageError("expected TENANT_ID, maybe with --name, or --file alone")
    if file is not None:
        _add_tenants(file)
        return
    assert tenant_id is not None  # noqa: S101 - said above
    with database(Settings.load()) as connection:
        new = registry_changes.add_tenant(connection, tenant_id, name)
    say(f"tenant {tenant_id} {'added' if new else 'exists already; left as it is'}")


def _add_tenants(file: TextIO) -> None:
    try:
        tenant_ids = [line.rstrip("\r\n") for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the file of tenants is not UTF-8 ({error.reason}); expected one id a line"
        ) from None
    with database(Settings.load()) as connection, connection.transaction():
        new = [registry_changes.add_tenant(connection, tenant_id) for tenant_id in tenant_ids]
    say(f"{sum(new)} tenants added, {new.count(False)} exist already; left as they are")


@tenant.command("list")
@json_option
def tenant_list(as_json: bool) -> None:
    """List the tenants."""
    with database(Settings.load()) as connection:
        rows = reader.tenants(connection)
    if not as_json:
        for row in rows:
            # Two that look alike, or one that can't be seen, would else be taken for one, or none.
            row |= {
                key: row[key] if is_plain(row[key]) else quoted(row[key]) for key in ("tenant_id", "name")
            }
    print_rows(rows, as_json=as_json, empty="no tenants yet; add one: processor tenant add TENANT_ID")


@tenant.command("suspend")
@click.argument("tenant_id")
def tenant_suspend(tenant_id: str) -> None:
    """Reject the events of a tenant from now on (tenant_suspended); they are kept, and can be replayed."""
    with database(Settings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "suspended")
    say(f"tenant {tenant_id} is suspended; its events become rejections (tenant_suspended)")


@tenant.command("resume")
@click.argument("tenant_id")
def tenant_resume(tenant_id: str) -> None:
    """Take the events of a tenant again."""
    with database(Settings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "active")
    say(
        f"tenant {tenant_id} is active; what was rejected meanwhile comes back by: "
        f"processor rejection replay --tenant {tenant_id} --reason tenant_suspended"
    )


@click.group()
def schema() -> None:
    """Event schemas: publish, list, show. A published version is never changed; publish the next one."""


@schema.command("publish")
@click.argument("event_type")
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--sample", type=click.Choice(samples()), help="Publish this sample schema of ours, instead of FILE."
)
@click.option("--tenant", "tenant_id", help="Publish it for this tenant alone; without it, for all tenants.")
@click.option(
    "--id-scope",
    "id_scope",
    metavar="POINTER",
    multiple=True,
    help="Ids are unique within this value of the payload alone, such as /user_id; repeatable.",
)
def schema_publish(
    event_type: str,
    file: BinaryIO | None,
    sample: str | None,
    tenant_id: str | None,
    id_scope: tuple[str, ...],
) -> None:
    """Publish FILE (or -), or a sample, as the next version of an event type's JSON Schema.

    The event type is added where it is new.

    The id of an event is unique within its tenant and producer. Where producers number their events anew for
    each user, say so with the first schema: with --id-scope /user_id the same id of two users, or of two
    event types, is two messages. The scope can't be changed later, since messages are known by it.
    """
    if file is not None and sample is None:
        definition = _json_of(file)
    elif sample is not None and file is None:
        definition = sample_of(sample)
    else:
        raise click.UsageError(f"expected either FILE or --sample NAME, one of {', '.join(samples())}")
    with database(Settings.load()) as connection:
        version = registry_changes.publish_schema(connection, event_type, definition, tenant_id, id_scope)
    say(f"published version {version} of {event_type} ({tenant_id or 'shared'})")


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
    name = getattr(file, "name", "the input")
    try:
        return schema_value(file.read().decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}: not UTF-8: {error.reason} at byte {error.start}") from None
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None


COMMANDS = [tenant, schema]
