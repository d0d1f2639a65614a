"""processor tenant: the registered tenants."""

from typing import TextIO

import click

from processor.cli.output import json_option, print_rows
from processor.errors import SettingsError
from processor.operations import reader
from processor.operations import registry as registry_changes
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings
from processor.validation.plain_names import is_plain, quoted
from processor.wiring import database


@click.group()
def tenant() -> None:
    """Add, list, suspend and resume tenants. A change applies to every event saved after it."""


@tenant.command("add")
@click.argument("tenant_id", required=False)
@click.option("--name", help="What people call it; the id if not given.")
@click.option(
    "--file", type=click.File(encoding="utf-8"), help="Add those in FILE (or -), one id a line, all or none."
)
def tenant_add(tenant_id: str | None, name: str | None, file: TextIO | None) -> None:
    """Add a tenant, or the tenants in a file; existing tenants stay unchanged."""
    if (tenant_id is None) == (file is None) or (name is not None and file is not None):
        raise click.UsageError("expected TENANT_ID, maybe with --name, or --file alone")
    if file is not None:
        _add_tenants(file)
        return
    assert tenant_id is not None  # noqa: S101 - said above
    with database(DatabaseSettings.load()) as connection:
        new = registry_changes.add_tenant(connection, tenant_id, name)
    say(f"tenant {tenant_id} {'added' if new else 'exists already; left as it is'}")


def _add_tenants(file: TextIO) -> None:
    try:
        tenant_ids = [line.rstrip("\r\n") for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the file of tenants is not UTF-8 ({error.reason}); expected one id a line"
        ) from None
    with database(DatabaseSettings.load()) as connection, connection.transaction():
        new = [registry_changes.add_tenant(connection, tenant_id) for tenant_id in tenant_ids]
    say(f"{sum(new)} tenants added, {new.count(False)} exist already; left as they are")


@tenant.command("list")
@json_option
def tenant_list(as_json: bool) -> None:
    """List the tenants."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.tenants(connection)
    if not as_json:
        for row in rows:
            # Names that look alike, or are invisible, would otherwise be confused.
            row |= {
                key: row[key] if is_plain(row[key]) else quoted(row[key]) for key in ("tenant_id", "name")
            }
    print_rows(rows, as_json=as_json, empty="no tenants yet; add one: processor tenant add TENANT_ID")


@tenant.command("suspend")
@click.argument("tenant_id")
def tenant_suspend(tenant_id: str) -> None:
    """Reject new events of a tenant (tenant_suspended); they are kept, and can be replayed."""
    with database(DatabaseSettings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "suspended")
    say(f"tenant {tenant_id} is suspended; its events become rejections (tenant_suspended)")


@tenant.command("resume")
@click.argument("tenant_id")
def tenant_resume(tenant_id: str) -> None:
    """Accept the events of a tenant again."""
    with database(DatabaseSettings.load()) as connection:
        registry_changes.set_tenant_status(connection, tenant_id, "active")
    say(
        f"tenant {tenant_id} is active; what was rejected meanwhile comes back by: "
        f"processor rejection replay --tenant {tenant_id} --reason tenant_suspended"
    )


COMMANDS = [tenant]
