"""processor key: the API keys of the gateway."""

import click

from processor.cli.output import json_option, moment_of, print_json, print_rows
from processor.cli.rights import notes_of, producers_option, rights_of, types_option, words_of
from processor.operations import reader, registry
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings, KeySettings
from processor.wire.sender_rights import Rights
from processor.wiring import database


@click.group()
def key() -> None:
    """Add, list and revoke API keys for the gateway. A key sends for its own tenant only."""


@key.command("add")
@click.argument("tenant_id")
@click.option("--name", default="", help="What the key is for, or who holds it.")
@types_option
@producers_option
@click.option(
    "--may-void", is_flag=True, help="Let it cancel messages of its producers by events of type void."
)
@click.option("--may-correct", is_flag=True, help="Let it send negative amounts to meters that take them.")
@json_option
def key_add(
    *,
    tenant_id: str,
    name: str,
    types: tuple[str, ...],
    producers: tuple[str, ...],
    may_void: bool,
    may_correct: bool,
    as_json: bool,
) -> None:
    """Add an API key to a tenant, and print it once: only its digest is stored.

    \b
    processor key add acme --producer acme-billing --event-types pulse

    A message is identified by tenant, producer and id: a key with a producer of its own can neither use up
    the ids of the platform's events for the tenant, nor void them.

    A tenant may have several keys, for a rotation without downtime. The permissions of a key never change.
    """  # noqa: D301 - click's mark for lines to be left as they are
    said = rights_of(types, producers) | {"may_void": may_void, "may_correct": may_correct}
    rights = Rights.of(said)
    settings = KeySettings.load()
    with database(settings) as connection:
        key_id, text = registry.add_key(connection, tenant_id, name, rights)
        wide, unknown = reader.around_key(connection, key_id)
    notes = notes_of(rights.producers, settings.reserved_producers)
    if rights.producers is None:
        notes.append(
            "without --producer this key can use the producer of the platform's own events for this tenant: "
            "take their ids"
            + (" and void them" if may_void else "")
            + "; --producer NAME prevents it, or RESERVED_PRODUCERS"
        )
    elif wide:
        notes.append(
            f"older keys of {tenant_id} can use this producer too, as they have none of their own; once "
            f"replaced: {'; '.join(f'processor key revoke {other}' for other in wide)}"
        )
    notes += [f"no schema of event type {one!r} yet: its events are rejected" for one in unknown]
    for note in notes:
        say(f"note: {note}", err=True)
    if as_json:
        print_json({"key_id": key_id, "tenant_id": tenant_id, "name": name, "key": text} | said)
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
    """List the keys with their permissions, revoked ones too, without the secrets."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.api_keys(connection, tenant_id)
    print_rows(
        rows if as_json else [_cells(row) for row in rows],
        as_json=as_json,
        empty="no keys; add one: processor key add TENANT_ID",
    )


@key.command("revoke")
@click.argument("key_id")
def key_revoke(key_id: str) -> None:
    """Revoke a key permanently. Gateways refuse it within GATEWAY_KEYS_EVERY_S seconds (5 by default)."""
    with database(DatabaseSettings.load()) as connection:
        tenant_id, revoked_at = registry.revoke_key(connection, _id_of(key_id))
    say(f"key of tenant {tenant_id} is revoked since {moment_of(revoked_at)}")


def _cells(row: reader.Row) -> reader.Row:
    """Format a row of the list."""
    types, producers = words_of(row)
    back = [word for word, column in (("void", "may_void"), ("correct", "may_correct")) if row[column]]
    return {
        "key_id": row["key_id"],
        "tenant_id": row["tenant_id"],
        "name": row["name"],
        "event_types": types or "any",
        "producers": producers or "any",
        "may": ", ".join(back) or None,
        "created_at": row["created_at"],
        "revoked_at": row["revoked_at"],
    }


def _id_of(text: str) -> str:
    """Extract the key's id, also from a whole key: a leaked key can be revoked directly."""
    return text.split("_")[1] if text.startswith("ep_") and text.count("_") > 1 else text


COMMANDS = [key]
