"""processor queue: the rules of queues."""

from typing import Any

import click

from processor.cli.output import json_option, print_json, print_rows
from processor.cli.rights import notes_of, producers_option, rights_of, types_option, words_of
from processor.decoding import mapping
from processor.errors import SettingsError
from processor.operations import reader
from processor.operations.queue_rules import NOTHING_SAID, nothing_said, remove_queue, require_name, set_queue
from processor.runtime.escaping import escaped
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings, KeySettings
from processor.settings.values import UNWRAPS, tenants_of
from processor.wiring import database

_UNSET = {
    "unwrap": ("unwrap",),
    "map": ("mapping",),
    "tenants": ("tenants",),
    "event-type": ("event_type",),
    "register": ("registers_tenants", "registers_max"),
    "event-types": ("event_types",),
    "producer": ("producers",),
    "no-void": ("may_void",),
    "no-correct": ("may_correct",),
}

_NOTHING = "no rules"


@click.group()
def queue() -> None:
    """Set, show, list and remove the rules of a queue: format of bodies, tenants, permissions.

    The rules are part of the registry: they apply to every event saved afterwards, in every process, and to
    replays of the queue's rejections. NAME is the queue's name as in `message.queue`: the last part of an
    SQS URL, the name of a RabbitMQ queue, or a Kafka topic.
    """


@queue.command("set")
@click.argument("name")
@click.option(
    "--unwrap",
    type=click.Choice(UNWRAPS),
    help="Whose envelopes to take off, the outer first.",
)
@click.option(
    "--map",
    "maps",
    metavar="FIELD=/POINTER",
    multiple=True,
    help="Where a body has tenant_id, event_type, payload (or payload_json: a text that is JSON), id, "
    "producer, occurred_at, schema_version; repeatable. Those given are the whole mapping.",
)
@click.option("--tenants", metavar="A,B", help="The tenants whose events the queue may carry.")
@click.option("--tenant", metavar="A", help="The one tenant whose events it carries, which need not name it.")
@click.option("--event-type", metavar="TYPE", help="The type of its events, which need not name it.")
@types_option
@producers_option
@click.option("--no-void", is_flag=True, help="Let it carry no events of type void.")
@click.option(
    "--no-correct", is_flag=True, help="Let it carry no negative amounts for meters that take them."
)
@click.option("--register", type=click.Choice(["tenants"]), help="Register unknown tenants of valid events.")
@click.option(
    "--register-max",
    type=click.IntRange(1, 2**31 - 1),
    help="How many tenants the queue may register within an hour.  [default: 1000]",
)
@click.option(
    "--unset", "unsets", type=click.Choice([*_UNSET]), multiple=True, help="Remove this rule; repeatable."
)
def queue_set(
    *,
    name: str,
    unwrap: str | None,
    maps: tuple[str, ...],
    tenants: str | None,
    tenant: str | None,
    event_type: str | None,
    types: tuple[str, ...],
    producers: tuple[str, ...],
    no_void: bool,
    no_correct: bool,
    register: str | None,
    register_max: int | None,
    unsets: tuple[str, ...],
) -> None:
    """Set rules of the queue NAME; the other rules stay unchanged.

    \b
    processor queue set acme --tenant acme --producer acme-app --no-void
    processor queue set events --map tenant_id=/client_id \\
      --map event_type=/event_type --map payload=/message
    processor queue set pulses --tenant acme --event-type pulse
    processor queue set orders --unwrap sns --register tenants

    With a mapping, every body is parsed by it, and the format is not detected. A time may be RFC 3339, or
    seconds or milliseconds since 1970. An integer id is stored as its digits. Members outside of the mapping
    are stored as context.

    --unwrap overrides the setting UNWRAP. If QUEUE_TENANTS binds the queue too, both must allow a tenant.
    With --register tenants, a valid event of an unregistered tenant registers its tenant.
    """  # noqa: D301 - click's mark for lines to be left as they are
    require_name(name)
    given: dict[str, Any] = {
        "unwrap": unwrap,
        "mapping": mapping.parse(maps) or None,
        "tenants": _tenants(tenant, tenants),
        "event_type": event_type,
        "registers_tenants": None if register is None else True,
        "registers_max": register_max,
        "may_void": False if no_void else None,
        "may_correct": False if no_correct else None,
        **rights_of(types, producers),
    }
    changes = _changes(given, unsets)
    if not changes:
        raise click.UsageError("no rule is given; name an option, see --help")
    settings = KeySettings.load()
    with database(settings) as connection:
        set_queue(connection, name, changes)
        rows = reader.queues(connection, name)
        notes = _notes(rows[0], reader.unknown_of_queue(connection, name)) if rows else []
        notes += notes_of(changes.get("producers"), settings.reserved_producers)
    say(f"queue {name}: {_words(rows[0]) if rows else _NOTHING}")
    for note in notes:
        say(f"note: {note}", err=True)


@queue.command("show")
@click.argument("name")
@json_option
def queue_show(name: str, as_json: bool) -> None:
    """Show the rules of the queue NAME."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.queues(connection, name)
    if not rows:
        raise nothing_said(name)
    if as_json:
        print_json(rows[0])
        return
    for column, value in _shown(rows[0]).items():
        click.echo(f"{column:17} {'-' if value is None else escaped(str(value))}")


@queue.command("list")
@json_option
def queue_list(as_json: bool) -> None:
    """List the queues that have rules."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.queues(connection)
    print_rows(
        rows if as_json else [{"queue": row["queue"], "rules": _words(row)} for row in rows],
        as_json=as_json,
        empty="no queue has rules; set some: processor queue set NAME ...",
    )


@queue.command("remove")
@click.argument("name")
def queue_remove(name: str) -> None:
    """Remove all rules of the queue NAME. Its bodies are parsed by the settings."""
    with database(DatabaseSettings.load()) as connection:
        remove_queue(connection, name)
    say(f"queue {name}: {_NOTHING}")


def _tenants(tenant: str | None, tenants: str | None) -> list[str] | None:
    if tenant is not None and tenants is not None:
        raise click.UsageError("expected --tenant or --tenants, not both")
    if tenant is not None:
        return [tenant]
    try:
        return None if tenants is None else sorted(tenants_of(tenants))
    except ValueError as error:
        raise SettingsError(f"--tenants: {error}") from None


def _changes(given: dict[str, Any], unsets: tuple[str, ...]) -> dict[str, Any]:
    changes = {column: value for column, value in given.items() if value is not None}
    for option in unsets:
        for column in _UNSET[option]:
            if column in changes:
                raise click.UsageError(f"--unset {option} contradicts what else is given")
            changes[column] = NOTHING_SAID[column]
    return changes


def _notes(row: dict[str, Any], unknown: dict[str, Any]) -> list[str]:
    """Warn of rules without effect yet; `unknown` has the names that the registry lacks."""
    notes = []
    if unknown["tenants"] and not row["registers_tenants"]:
        names = ", ".join(map(repr, unknown["tenants"]))
        notes.append(
            f"no tenant {names}: events of such are rejected until it is added (processor tenant add)"
        )
    if row["registers_tenants"] and row["tenants"] and not unknown["tenants"]:
        notes.append("the tenants that it is bound to are all registered, so it registers none")
    if unknown["event_type"]:
        notes.append(
            f"no schema of event type {row['event_type']!r} yet: its events are rejected until there is one "
            "(processor schema publish)"
        )
    if row["event_types"] is not None and row["event_type"] not in (None, *row["event_types"]):
        notes.append(f"it carries {row['event_type']!r} alone, which it may not carry: --event-types")
    return notes


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    fields = row["mapping"] or {}
    types, producers = words_of(row)
    return row | {
        "event_types": types,
        "producers": producers,
        "may_void": "yes" if row["may_void"] else "no",
        "may_correct": "yes" if row["may_correct"] else "no",
        "mapping": " ".join(f"{name}={pointer}" for name, pointer in sorted(fields.items())) or None,
        "tenants": None if row["tenants"] is None else ", ".join(row["tenants"]),
        "registers_tenants": "yes" if row["registers_tenants"] else "no",
    }


def _words(row: dict[str, Any]) -> str:
    """Format the rules of a queue as one line."""
    shown = _shown(row)
    parts = [
        f"{label} {shown[column]}"
        for column, label in (
            ("unwrap", "unwrap"),
            ("mapping", "map"),
            ("tenants", "tenants"),
            ("event_type", "event type"),
            ("event_types", "event types"),
            ("producers", "producers"),
        )
        if shown[column] is not None
    ]
    parts += [
        words
        for column, words in (("may_void", "no voids"), ("may_correct", "no negative amounts"))
        if not row[column]
    ]
    if row["registers_tenants"]:
        parts.append(f"registers tenants, at most {row['registers_max']} an hour")
    elif row["registers_max"] != NOTHING_SAID["registers_max"]:
        parts.append(f"registers no tenants; at most {row['registers_max']} an hour once --register is set")
    return "; ".join(parts)


COMMANDS = [queue]
