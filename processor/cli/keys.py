"""By whom the gateway knows who sends: processor key."""

import click

from processor import reader, registry
from processor.cli.output import json_option, moment_of, print_json, print_rows
from processor.settings import Settings
from processor.terminal import say
from processor.wiring import database


@click.group()
def key() -> None:
    """Keys of tenants, for the gateway: add, list, revoke. A key sends as its own tenant alone."""


@key.command("add")
@click.argument("tenant_id")
@click.option("--name", default="", help="What the key is for, or who holds it.")
@json_option
def key_add(tenant_id: str, name: str, as_json: bool) -> None:
    """Add an API key to a tenant, and print the key. It is shown this once: only its digest is kept.

    A tenant may have several, so that a new one can be brought out before the old one is revoked.
    """
    with database(Settings.load()) as connection:
        key_id, text = registry.add_key(connection, tenant_id, name)
    if as_json:
        print_json({"key_id": key_id, "tenant_id": tenant_id, "name": name, "key": text})
        return
    # On the two outputs, so that a script can take the key alone.
    say(text)
    say(
        f"key {key_id} of tenant {tenant_id}: keep it now, it is not shown again. Requests send it as "
        f"Authorization: Bearer ep_{key_id}_...; gateways know it within GATEWAY_KEYS_EVERY_S seconds "
        f"(5 by default); it ends by: processor key revoke {key_id}",
        err=True,
    )


@key.command("list")
@click.option("--tenant", "tenant_id", help="Only those of this tenant.")
@json_option
def key_list(tenant_id: str | None, as_json: bool) -> None:
    """List the keys, revoked ones too; the keys themselves are shown nowhere."""
    with database(Settings.load()) as connection:
        rows = reader.api_keys(connection, tenant_id)
    print_rows(rows, as_json=as_json, empty="no keys; add one: processor key add TENANT_ID")


@key.command("revoke")
@click.argument("key_id")
def key_revoke(key_id: str) -> None:
    """End a key for ever. Gateways notice within GATEWAY_KEYS_EVERY_S seconds (5 by default)."""
    with database(Settings.load()) as connection:
        tenant_id, revoked_at = registry.revoke_key(connection, _id_of(key_id))
    say(f"key of tenant {tenant_id} is revoked since {moment_of(revoked_at)}")


def _id_of(text: str) -> str:
    """Take the key's id out of a whole key, too: whoever found one somewhere wants to end it at once."""
    return text.split("_")[1] if text.startswith("ep_") and text.count("_") > 1 else text


COMMANDS = [key]
