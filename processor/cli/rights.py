"""The options of commands for a sender's permissions: event types and producers."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from processor.errors import SettingsError
from processor.settings.values import identifier, producer, producers_of
from processor.wire.sender_rights import VOID, shown

F = TypeVar("F", bound=Callable[..., Any])

types_option: Callable[[F], F] = click.option(
    "--event-types", "types", metavar="A,B", multiple=True, help="The event types that it may send."
)
producers_option: Callable[[F], F] = click.option(
    "--producer",
    "producers",
    metavar="NAME",
    multiple=True,
    help="The producer that its events are of, and no other; repeatable. NAME* stands for all that begin "
    "with NAME, such as the sources of CloudEvents, '\"\"' for events that name none. With one NAME alone an "
    "event that names no producer is of that one.",
)


def rights_of(types: tuple[str, ...], producers: tuple[str, ...]) -> dict[str, Any]:
    """Parse the two options into columns. Raises SettingsError."""
    names = sorted({name.strip() for text in types for name in text.split(",")})
    if VOID in names:
        raise SettingsError(f"--event-types: {VOID} is a right of its own; see --help")
    if not all(names):
        raise SettingsError("--event-types: expected names with commas between them")
    try:
        for name in names:
            identifier(name, "event type")
        own = list(dict.fromkeys(map(producer, producers)))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return {"event_types": names or None, "producers": own or None}


def notes_of(producers: Iterable[str] | None, reserved: str) -> list[str]:
    """Warn of patterns that cover reserved producers; `reserved` is RESERVED_PRODUCERS."""
    notes = []
    for name in producers or ():
        if name.endswith("*"):
            found = [shown(one) for one in (*producers_of(reserved), "") if one.startswith(name[:-1])]
            if found:
                notes.append(
                    f"--producer {shlex.quote(name)} covers {', '.join(found)} too: ids of such events can "
                    "be taken; name less to prevent it"
                )
    return notes


def words_of(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Format the event types and producers of a key or a queue; None: any."""
    types, producers = row["event_types"], row["producers"]
    return (
        None if types is None else ", ".join(types),
        None if producers is None else ", ".join(map(shown, producers)),
    )
