"""The counter: the message count of each user, as one file per event type.

    meters without windows, grouped by one name ─▶ total ─▶ created.json  {"u1": 3, "u2": 1}

This module does not count: totals were raised in the transactions that stored the messages. The counts of a
single run come from the messages that it recorded in those transactions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row

from processor.database.connection import require_all_rows
from processor.database.queries import queries
from processor.errors import NotFound, SettingsError
from processor.model import Message
from processor.store.rows import key_columns
from processor.usage.count_files import Replacement, file_name

Connection: TypeAlias = psycopg.Connection[Any]

_FETCH_SIZE = 5000


@dataclass(frozen=True, slots=True)
class CountSelection:
    """The tenant of the counts (`tenant_id` None: the sum of all tenants), their group, and the meters.

    `meters` empty: all suitable meters. With a `run_id`, only messages stored by that run count.
    """

    tenant_id: str | None = None
    group_name: str = "user_id"
    meters: tuple[str, ...] = ()
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class CountFile:
    """A written file, with its number of users and the sum of their messages."""

    event_type: str
    file: str
    users: int
    messages: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The written files, and the number of tenants in them."""

    files: tuple[CountFile, ...]
    tenants: int


class RunNotes:
    """Records the messages of one run, in the transactions that store them."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._sql = queries("save")["note_run_messages"]

    def stored(self, cursor: psycopg.Cursor[Any], messages: Sequence[Message]) -> None:
        """Record these messages."""
        cursor.execute(self._sql, {"run_id": self._run_id} | key_columns(messages))


def find_counters(connection: Connection, selection: CountSelection) -> Mapping[str, list[int]]:
    """Return the suitable meters by event type.

    Raises NotFound without a meter or for an unknown tenant, SettingsError if the choice is ambiguous, and
    StoreFault if row-level security hides rows from this role.
    """
    if selection.tenant_id is None:
        require_all_rows(connection)
    elif connection.execute(queries("counter")["known_tenant"], _parameters(selection)).fetchone() is None:
        raise NotFound(
            f"no tenant {selection.tenant_id!r}; `processor tenant list` shows those there are, and "
            f"`processor counter setup --tenant {selection.tenant_id}` adds it and all that is counted"
        )
    rows = connection.execute(queries("counter")["counters"], _parameters(selection)).fetchall()
    if not rows:
        raise NotFound(_no_counter(selection))
    counters = [_Counter(*row) for row in rows]
    event_types = dict.fromkeys(counter.event_type for counter in counters)
    return {
        event_type: _choose([counter for counter in counters if counter.event_type == event_type])
        for event_type in event_types
    }


def write_counts(connection: Connection, directory: Path, selection: CountSelection) -> Counts:
    """Write one file per counted event type, all of one snapshot; other files stay unchanged.

    Raises as find_counters does, and SettingsError if the directory is not writable.
    """
    sql = queries("counter")
    with connection.transaction(), Replacement(directory) as replacement:
        connection.execute(sql["use_one_snapshot"])
        counters = find_counters(connection, selection)
        files = []
        for event_type, meter_ids in counters.items():
            of_type = {"meter_ids": meter_ids, "event_types": [event_type]}
            entries = _Entries(connection, _parameters(selection) | of_type)
            users = replacement.write(file_name(event_type), entries)
            files.append(CountFile(event_type, file_name(event_type), users, entries.messages))
        everything = {
            "meter_ids": [meter_id for meter_ids in counters.values() for meter_id in meter_ids],
            "event_types": list(counters),
        }
        row = connection.execute(sql["counted_tenants"], _parameters(selection) | everything).fetchone()
        replacement.put_in_place()
    return Counts(tuple(files), tenants=0 if row is None else int(row[0]))


def forget_run(connection: Connection, run_id: str) -> None:
    """Delete the records of a run, since its counts are written."""
    connection.execute(queries("counter")["forget_run"], {"run_id": run_id})


def forget_runs(connection: Connection, *, keep_days: int) -> None:
    """Delete the records of runs whose counts were not written within `keep_days`."""
    connection.execute(queries("counter")["forget_runs"], {"days": keep_days})


class _Entries(Iterator[tuple[str, int]]):
    """The users of one event type with their counts, in order, read in pages to save memory."""

    def __init__(self, connection: Connection, parameters: Mapping[str, Any]) -> None:
        self.messages = 0
        self._entries = self._read(connection, parameters)

    def __next__(self) -> tuple[str, int]:
        return next(self._entries)

    def _read(self, connection: Connection, parameters: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        with connection.cursor(name="counts", row_factory=tuple_row) as cursor:
            cursor.itersize = _FETCH_SIZE
            for counted, messages in cursor.execute(queries("counter")["counts"], parameters):
                self.messages += messages
                yield counted, messages


@dataclass(frozen=True, slots=True)
class _Counter:
    meter_id: int
    meter: str
    tenant_id: str | None
    event_type: str
    is_active: bool


def _choose(counters: Sequence[_Counter]) -> list[int]:
    """Choose the meters of one event type so that each message counts once.

    A retired meter is omitted if an active one counts the same messages.
    """
    active_for = {counter.tenant_id for counter in counters if counter.is_active}
    chosen = [
        counter for counter in counters if counter.is_active or not active_for & {counter.tenant_id, None}
    ]
    owners = [counter.tenant_id for counter in chosen]
    if len(set(owners)) < len(owners) or (None in owners and len(owners) > 1):
        names = sorted({counter.meter for counter in chosen})
        raise SettingsError(
            f"event type {chosen[0].event_type!r} is counted by several meters: {', '.join(names)}; name the "
            f"one to go by: processor count --meter {names[0]}"
        )
    return [counter.meter_id for counter in chosen]


def _no_counter(selection: CountSelection) -> str:
    which = f" named {' or '.join(selection.meters)}" if selection.meters else ""
    whose = "" if selection.tenant_id is None else f" for tenant {selection.tenant_id!r}"
    name = selection.group_name
    if name == "user_id" and not which:
        return (
            f"no meter counts messages by user_id alone and without windows{whose}; make what the counter "
            f"needs: processor counter setup --tenant {selection.tenant_id or 'TENANT'}"
        )
    return (
        f"no meter{which} counts messages by {name} alone and without windows{whose}; add one: "
        f"processor meter add created --event-type created --count --by {name}=/{name} --window none "
        "--past-limit none --future-limit none"
    )


def _parameters(selection: CountSelection) -> dict[str, Any]:
    return {
        "tenant_id": selection.tenant_id,
        "group_name": selection.group_name,
        "meters": list(selection.meters),
        "run_id": selection.run_id,
    }
