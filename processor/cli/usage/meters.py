"""processor meter: the definitions of meters."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from processor.cli.moments import Length, Limit
from processor.cli.output import json_option, print_json, print_rows
from processor.errors import SettingsError
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings
from processor.usage import meters as usage_meters
from processor.usage.doubts import PossibleMiss
from processor.usage.meters import Definition
from processor.wiring import database

F = TypeVar("F", bound=Callable[..., Any])

_MISSES_SHOWN_MAX = 20

TIME_WORDS = {
    "too_old": "its time was longer ago than the past limit ({past_limit}) when it was stored; if such "
    "events should count, add a meter under a new name with a wider --past-limit, and retire this one",
    "too_new": "its time was further ahead than the future limit ({future_limit}) when it was stored: is the "
    "producer's clock right? If such events should count, add a meter with a wider --future-limit",
}
SCHEMA_WORDS = {
    "value_missing": "require {value_pointer}, and objects on the way to it",
    "value_not_a_number": 'say "type": "number" of {value_pointer} (or let numbers in quotes count, by '
    "processor meter text-amounts {meter})",
    "value_negative": 'say "minimum": 0 of {value_pointer}',
    "value_out_of_bounds": "bound {value_pointer}: less than 1e38, and at most 38 digits after the point",
    "group_missing": "require {group_pointers}, and allow no null there",
    "group_not_a_scalar": "allow texts, numbers and booleans alone at {group_pointers}",
    "group_too_long": 'say "maxLength" of {group_pointers}: all together take 1024 bytes at the most',
}


@click.group()
def meter() -> None:
    """Add, list, show and retire meters, which count events or add amounts by group.

    A meter counts the messages stored after it was added. Its definition never changes: retire it, and add
    another.
    """


def _defining(command: F) -> F:
    lengths, limits = Length(), Limit()
    for option in reversed(
        [
            click.option("--event-type", required=True, help="Whose messages are counted."),
            click.option("--sum", "value_pointer", metavar="POINTER", help="Add the numbers it leads to."),
            click.option("--count", "counts", is_flag=True, help="Add one for each message, instead."),
            click.option(
                "--by",
                "groups",
                metavar="NAME=POINTER",
                multiple=True,
                help="Group by the value that POINTER leads to; up to four times.",
            ),
            click.option(
                "--window", "window_size", type=click.Choice(["hour", "day", "none"]), default="hour",
                show_default=True, help="Totals by hour or day (UTC), or one for ever, which never closes.",
            ),
            click.option("--tenant", "tenant_id", help="Make it this tenant's own; else it counts for all."),
            click.option(
                "--grace", type=lengths, default="15m", show_default=True,
                help="How long after its end a window waits for stragglers.",
            ),
            click.option(
                "--past-limit", type=limits, default="92d", show_default=True,
                help="Do not count an event that was this long ago when it was stored.",
            ),
            click.option(
                "--future-limit", type=limits, default="1h", show_default=True,
                help="Do not count an event that is this far ahead of the clock when it is stored.",
            ),
            click.option(
                "--allow-corrections", "allows_corrections", is_flag=True,
                help="Take negative numbers, too; without it such an event is rejected.",
            ),
            click.option(
                "--text-amounts", "text_amounts", is_flag=True,
                help='Take numbers in quotes ("2.5"), too; without it they are stored and not counted.',
            ),
            click.option(
                "--hand-over/--no-hand-over", "is_handed_over", default=False, show_default=True,
                help="Whether processor dispatch hands its closed windows to the sink.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


@meter.command("add")
@click.argument("name")
@_defining
def meter_add(
    name: str,
    *,
    value_pointer: str | None,
    counts: bool,
    groups: tuple[str, ...],
    **given: Any,  # noqa: ANN401 - the options of _defining that are columns
) -> None:
    """Add a meter; it counts messages stored from then on. Adding the same meter again does nothing.

    POINTER is a JSON pointer into the payload, such as /used_amount. A message without a readable number or
    group is stored and counted as a miss: processor meter show. The command warns of schemas in force that
    allow such payloads.

    \b
    processor meter add pulse --event-type pulse --sum /used_amount
        --by product_sku=/product_sku --by use_unity=/use_unity --hand-over
    """  # noqa: D301 - a real backspace keeps click from filling the lines
    if counts == (value_pointer is not None):
        raise click.UsageError("expected either --sum POINTER or --count")
    definition = Definition(
        meter=name, value_pointer=value_pointer, groups=tuple(_group(text) for text in groups), **given
    )
    with database(DatabaseSettings.load()) as connection:
        new = usage_meters.add(connection, definition)
        row = usage_meters.one_meter(connection, name, definition.tenant_id)
        doubts = usage_meters.doubts(connection, definition)
    say(f"meter {name} {'added' if new else 'is there already, the very same'}: {_what(row)}")
    option = f" --tenant {definition.tenant_id}" if definition.tenant_id else ""
    say(
        f"it counts what is stored from {_moment(row['active_from'])} on; older messages by: "
        f"processor usage rebuild --meter {name}{option}"
    )
    for doubt in doubts:
        say(f"warning: {doubtful(doubt)}", err=True)


@meter.command("list")
@click.option(
    "--tenant", "tenant_id", help="Only those that count for this tenant: its own and the shared ones."
)
@json_option
def meter_list(tenant_id: str | None, as_json: bool) -> None:
    """List the meters, with the number of messages that each could not count (misses)."""
    with database(DatabaseSettings.load()) as connection:
        rows = usage_meters.meters(connection, tenant_id=tenant_id)
    shown = [
        {
            "meter": row["meter"],
            "tenant_id": row["tenant_id"],
            "event_type": row["event_type"],
            "counts": row["value_pointer"] or "messages",
            "by": ", ".join(row["group_names"]),
            "window": row["window_size"],
            "handed_over": "yes" if row["is_handed_over"] else "no",
            "status": row["status"],
            "active_from": row["active_from"],
            "misses": row["misses"],
        }
        for row in rows
    ]
    print_rows(
        [_plain(row) for row in rows] if as_json else shown,
        as_json=as_json,
        empty="no meters yet; add one: processor meter add NAME --event-type TYPE --count",
    )


@meter.command("show")
@click.argument("name")
@click.option("--tenant", "tenant_id", help="The tenant whose own it is, or whose misses are asked for.")
@json_option
def meter_show(name: str, tenant_id: str | None, as_json: bool) -> None:
    """Show a meter: its definition, and its misses by reason and tenant.

    Missed messages are stored. Each kind of miss has one example (see processor trace), and the schema that
    accepted it and should forbid it.
    """
    with database(DatabaseSettings.load()) as connection:
        row = usage_meters.one_meter(connection, name, tenant_id)
        misses, kinds = usage_meters.misses(connection, row["meter_id"], tenant_id)
    if as_json:
        print_json(_plain(row) | {"misses": misses, "miss_kinds": kinds})
        return
    say(f"{row['meter']}: {_what(row)}")
    for column in ("status", "active_from", "retired_at", "grace", "past_limit", "future_limit"):
        value = row[column]
        say(f"  {column:18} {_moment(value) if column.endswith(('_from', '_at')) else _length(value)}")
    for column in ("allows_corrections", "text_amounts", "is_handed_over"):
        since = f", since {_moment(row['text_amounts_from'])}" if column == "text_amounts" else ""
        say(f"  {column:18} {'yes' if row[column] else 'no'}{since if row['text_amounts_from'] else ''}")
    if not misses:
        say("misses: none; every message of its event type was counted")
        return
    say(f"misses: {sum(miss['messages'] for miss in misses)} messages are stored and not counted")
    for miss in misses[:_MISSES_SHOWN_MAX]:
        say("\n".join(_miss_lines(row, miss)))
    if kinds > _MISSES_SHOWN_MAX:
        say(f"... and {kinds - _MISSES_SHOWN_MAX} more kinds; --json shows up to a thousand")


@meter.command("text-amounts")
@click.argument("name")
@click.option("--tenant", "tenant_id", help="The tenant whose own it is.")
def meter_text_amounts(name: str, tenant_id: str | None) -> None:
    """Let a meter count amounts in quotes, such as "2.5", permanently from now on.

    A text counts if it is spelled like a JSON number, with the rules of numbers: if it is too large, or
    negative without --allow-corrections, the event is rejected from now on. Any other text stays a miss.
    """
    with database(DatabaseSettings.load()) as connection:
        row, done = usage_meters.allow_text_amounts(connection, name, tenant_id)
    since = f" since {_moment(row['text_amounts_from'])}" if row["text_amounts_from"] else ""
    option = f" --tenant {row['tenant_id']}" if row["tenant_id"] else ""
    say(f"meter {name} counts amounts in quotes{since}{'' if done else ', as before'}")
    if since:
        say(f"those that were stored before by: processor usage rebuild --meter {name}{option}")


@meter.command("retire")
@click.argument("name")
@click.option("--tenant", "tenant_id", help="The tenant whose own it is.")
def meter_retire(name: str, tenant_id: str | None) -> None:
    """Retire a meter permanently. Its totals stay, close and are handed over."""
    with database(DatabaseSettings.load()) as connection:
        row, done = usage_meters.retire(connection, name, tenant_id)
    say(
        f"meter {name} {'is retired' if done else 'was retired before'}; "
        f"it counts nothing that is stored from {_moment(row['retired_at'])} on"
    )


def _group(text: str) -> tuple[str, str]:
    name, separator, pointer = text.partition("=")
    if not separator:
        raise SettingsError(f"--by {text!r}: expected NAME=POINTER, such as product_sku=/product_sku")
    return name, pointer


def _what(row: dict[str, Any]) -> str:
    counted = f"the sum of {row['value_pointer']} in" if row["value_pointer"] is not None else "the number of"
    groups = ", ".join(
        f"{name} ({pointer})" for name, pointer in zip(row["group_names"], row["group_pointers"], strict=True)
    )
    windows = "for ever" if row["window_size"] == "none" else f"by {row['window_size']}"
    whose = f"of tenant {row['tenant_id']}" if row["tenant_id"] else "of every tenant"
    return f"{counted} {row['event_type']} messages {whose}, {windows}{', by ' + groups if groups else ''}"


def doubtful(doubt: PossibleMiss) -> str:
    """Describe a possible miss of a schema, and the fix."""
    option = f" --tenant {doubt.tenant_id}" if doubt.tenant_id else ""
    return (
        f"by schema {_schema(doubt.event_type, doubt.tenant_id, doubt.version)} {doubt.why}: such a message "
        f"is stored, and not counted. Forbid it in the next version: "
        f"processor schema publish {doubt.event_type} FILE{option}"
    )


def _miss_lines(row: dict[str, Any], miss: dict[str, Any]) -> list[str]:
    head = (
        f"  {miss['reason']:20} {miss['messages']:>8}   tenant {miss['tenant_id']}, "
        f"last {_moment(miss['last_at'])}, such as {miss['last_message_id']}"
    )
    known = row | {
        "group_pointers": ", ".join(row["group_pointers"]),
        "past_limit": _length(row["past_limit"]),
        "future_limit": _length(row["future_limit"]),
    }
    if miss["reason"] in TIME_WORDS:
        return [head, "      " + TIME_WORDS[miss["reason"]].format_map(known)]
    option = f" --tenant {miss['schema_tenant_id']}" if miss["schema_tenant_id"] else ""
    schema = _schema(miss["event_type"], miss["schema_tenant_id"], miss["version"])
    advice = SCHEMA_WORDS[miss["reason"]].format_map(known)
    command = f"processor schema publish {miss['event_type']} FILE{option}"
    return [head, f"      schema {schema} let it pass; the next version should {advice}: {command}"]


def _schema(event_type: str, tenant_id: str | None, version: int) -> str:
    return f"{event_type} version {version} ({'tenant ' + tenant_id if tenant_id else 'shared'})"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a meter to JSON: durations in seconds, times in UTC."""
    return {
        (f"{name}_s" if name in ("grace", "past_limit", "future_limit") else name): (
            int(value.total_seconds()) if isinstance(value, timedelta) else value
        )
        for name, value in row.items()
    }


def _moment(moment: datetime | None) -> str:
    return (
        "-" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def _length(value: Any) -> str:  # noqa: ANN401 - a length, a word or none
    if value is None:
        return "none"
    if not isinstance(value, timedelta):
        return str(value)
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


COMMANDS = [meter]
