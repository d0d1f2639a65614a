"""Meters: they are added, listed and retired, and their definitions never change.

definition ─▶ checked here, for the messages ─▶ checked by the table, for safety ─▶ counts from its commit on
"""

import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import Busy, NotFound, ProcessorError, SettingsError
from processor.usage.doubts import PossibleMiss, doubts_of
from processor.usage.selection import Connection, Row

GROUPS_MAX = 4
POINTER_CHARS_MAX = 256

NAMES_TAKEN = (
    "tenant_id", "window_start", "window_end", "revision", "messages", "key", "value", "meter", "group",
)  # fmt: skip
"""The members of a line besides its groups; the same list as in meter_group_names_fit."""

_MISSES_KEPT_MAX = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_GROUP_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POINTER = re.compile(r"(/([^~/\0]|~[01])*)*")
# An array index has one spelling in a JSON pointer.
_ODD_PLACE = re.compile(r"/(\s*[+-]\s*\d+|\s+\d+|0\d+)(/|$)")

_REFUSED = {
    "meter_name_clear": "the name {meter!r} is taken: a shared meter counts for every tenant, so no tenant "
    "may have one of its own by the same name; choose another name",
    "meter_pulse_lines_clear": "lines of {meter!r} would look like those of another meter that is handed "
    "over, and count the same messages: a sum of /used_amount by product_sku and use_unity makes lines that "
    "don't name their meter. Retire the other one first (processor meter list), leave --hand-over away, or "
    "name the groups otherwise, such as --by sku=/product_sku",
    "meter_grace_bounded": "--grace {grace}: expected 0 to 92 days",
    "meter_past_limit_bounded": "--past-limit {past_limit}: expected 0 to 3660 days, or none",
    "meter_future_limit_bounded": "--future-limit {future_limit}: expected 0 to 3660 days, or none",
    "meter_text_amounts_summed": "--text-amounts with --count: only a sum has amounts; leave one of both out",
    "meter_event_type_fkey": "no event type {event_type!r}; publish a schema first, which makes it: "
    "processor schema publish {event_type} FILE",
    "meter_tenant_fkey": "no tenant {tenant_id!r}; add it first: processor tenant add {tenant_id}",
}
"""The errors by constraint name; NotFound if the definition names an unknown entry."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a meter. `value_pointer` None counts messages; a limit of None means no limit."""

    meter: str
    event_type: str
    tenant_id: str | None = None
    value_pointer: str | None = None
    groups: tuple[tuple[str, str], ...] = ()
    window_size: str = "hour"
    grace: timedelta = timedelta(minutes=15)
    past_limit: timedelta | None = timedelta(days=92)
    future_limit: timedelta | None = timedelta(hours=1)
    allows_corrections: bool = False
    is_handed_over: bool = False
    text_amounts: bool = False

    def row(self) -> dict[str, Any]:
        """Return the definition as columns of the table."""
        row = asdict(self)
        del row["groups"]
        return row | {
            "aggregation": "count" if self.value_pointer is None else "sum",
            "group_names": [name for name, _ in self.groups],
            "group_pointers": [pointer for _, pointer in self.groups],
        }


def add(connection: Connection, definition: Definition) -> bool:
    """Add a meter, which counts from the commit on; returns whether it is new (False: the same one exists).

    Raises SettingsError for an invalid definition or a name in use, NotFound for an unknown event type or
    tenant, Busy if the meter is deleted concurrently.
    """
    _check(definition)
    row = definition.row()
    try:
        with connection.transaction():
            new = connection.execute(queries("meters")["add_meter"], row).fetchone() is not None
    except psycopg.IntegrityError as error:
        raise _refusal(error.diag.constraint_name or "", row) from None
    except (psycopg.DataError, UnicodeEncodeError):
        raise SettingsError(
            f"the database does not take the texts of meter {definition.meter!r}; expected UTF-8, and no "
            "\\u0000 in them"
        ) from None
    if not new:
        _require_same(connection, row)
    return new


def meters(connection: Connection, meter: str | None = None, tenant_id: str | None = None) -> list[Row]:
    """List the meters, or those of one name; with a tenant, its own and the shared ones."""
    try:
        with connection.cursor(row_factory=dict_row) as cursor:
            parameters = {"meter": meter, "tenant_id": tenant_id}
            return cursor.execute(queries("meters")["list_meters"], parameters).fetchall()
    except (psycopg.DataError, UnicodeEncodeError):
        return []


def one_meter(connection: Connection, meter: str, tenant_id: str | None) -> Row:
    """Return the meter of a name that is shared, or that tenant's own; without a tenant, the only one.

    Raises NotFound if it does not exist, SettingsError if several tenants have one.
    """
    rows = meters(connection, meter, tenant_id)
    if not rows:
        whose = f" that counts for tenant {tenant_id!r}" if tenant_id else ""
        raise NotFound(f"no meter {meter!r}{whose}; `processor meter list` shows those there are")
    if len(rows) > 1:
        raise SettingsError(
            f"{len(rows)} tenants have a meter {meter!r} of their own ({rows[0]['tenant_id']}, ...); "
            "say which by --tenant (processor meter list shows them)"
        )
    return rows[0]


def misses(connection: Connection, meter_id: int, tenant_id: str | None = None) -> tuple[list[Row], int]:
    """Return the misses of a meter, most frequent first, and the number of all such rows.

    A row has tenant_id, reason, messages, first_at, last_at, last_message_id, and the schema that
    accepted the payload: event_type, schema_tenant_id, version.
    """
    parameters = {"meter_id": meter_id, "tenant_id": tenant_id, "kept": _MISSES_KEPT_MAX}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(queries("meters")["misses"], parameters).fetchall()
    counts = [row.pop("found_count") for row in rows]
    return rows, counts[0] if counts else 0


def retire(connection: Connection, meter: str, tenant_id: str | None) -> tuple[Row, bool]:
    """Retire a meter for new messages; returns it, and whether it was active before."""
    row = one_meter(connection, meter, tenant_id)
    done = connection.execute(queries("meters")["retire_meter"], {"meter_id": row["meter_id"]}).rowcount == 1
    return one_meter(connection, meter, row["tenant_id"]), done


def allow_text_amounts(connection: Connection, meter: str, tenant_id: str | None) -> tuple[Row, bool]:
    """Let a meter count amounts in quotes in new messages; returns it, and whether that is new.

    Raises as one_meter does, and SettingsError if the meter adds no amounts or is retired.
    """
    row = one_meter(connection, meter, tenant_id)
    if row["value_pointer"] is None or row["status"] == "retired":
        why = "counts messages, and adds no amounts" if row["value_pointer"] is None else "is retired"
        raise SettingsError(f"meter {meter!r} {why}; `processor meter list` shows the others")
    parameters = {"meter_id": row["meter_id"]}
    done = connection.execute(queries("meters")["allow_text_amounts"], parameters).rowcount == 1
    return one_meter(connection, meter, row["tenant_id"]), done


def doubts(connection: Connection, definition: Definition) -> list[PossibleMiss]:
    """List the schemas in force that may accept payloads which the meter can't count."""
    parameters = {"event_type": definition.event_type, "tenant_id": definition.tenant_id}
    with connection.cursor(row_factory=dict_row) as cursor:
        schemas = cursor.execute(queries("meters")["latest_schemas"], parameters).fetchall()
    pointers = [pointer for _, pointer in definition.groups]
    return [
        doubt
        for schema in schemas
        for doubt in doubts_of(
            definition.event_type,
            schema,
            definition.value_pointer,
            pointers,
            text_amounts=definition.text_amounts,
        )
    ]


def _check(definition: Definition) -> None:
    """Raise SettingsError with a readable message for violations of the table's constraints."""
    if not _NAME.fullmatch(definition.meter):
        raise SettingsError(
            f"{definition.meter[:80]!r} is no name for a meter; expected 1 to 63 of a-z, 0-9, _, . and -, "
            "the first a letter or a digit"
        )
    if len(definition.groups) > GROUPS_MAX:
        raise SettingsError(f"{len(definition.groups)} groups; expected {GROUPS_MAX} at the most (--by)")
    names = [name for name, _ in definition.groups]
    for name, pointer in definition.groups:
        if not _GROUP_NAME.fullmatch(name):
            raise SettingsError(
                f"--by {name[:80]!r}: no name for a group; expected 1 to 63 of a-z, 0-9 and _, "
                "the first no digit"
            )
        if name in NAMES_TAKEN:
            taken = ", ".join(NAMES_TAKEN)
            raise SettingsError(
                f"--by {name}: lines have a field of this name already ({taken}); choose another"
            )
        if names.count(name) > 1:
            raise SettingsError(f"--by {name} is given {names.count(name)} times; expected each name once")
        _check_pointer(f"--by {name}", pointer)
    if definition.value_pointer is not None:
        _check_pointer("--sum", definition.value_pointer)
    if definition.is_handed_over and definition.window_size == "none":
        raise SettingsError(
            "--hand-over with --window none: such a total never closes, and only closed windows are handed "
            "over; choose --window hour or day, or --no-hand-over"
        )


def _check_pointer(option: str, pointer: str) -> None:
    if len(pointer) > POINTER_CHARS_MAX or not _POINTER.fullmatch(pointer) or _ODD_PLACE.search(pointer):
        raise SettingsError(
            f"{option}: {pointer[:80]!r} is no JSON pointer into the payload; expected such as /used_amount "
            f"or /lines/0/amount (RFC 6901; {POINTER_CHARS_MAX} characters at the most)"
        )


def _refusal(law: str, row: Row) -> ProcessorError:
    words = _REFUSED.get(law)
    if words is None:
        return SettingsError(
            f"the database refuses meter {row['meter']!r} ({law or 'no law named'}); "
            "`\\d+ meter` in psql says what it expects"
        )
    kind = NotFound if law.endswith("_fkey") else SettingsError
    return kind(words.format_map(row))


def _require_same(connection: Connection, row: Row) -> None:
    """Raise SettingsError unless the meter of this name has the same definition and is active."""
    name = row["meter"]
    same_name = [known for known in meters(connection, name) if known["tenant_id"] == row["tenant_id"]]
    if not same_name:
        raise Busy(f"meter {name!r} was there, and is gone again; somebody is at it: ask again")
    [known] = same_name
    if known["status"] == "retired":
        raise SettingsError(
            f"meter {name!r} was retired {known['retired_at']:%Y-%m-%d}, and what it counted stays under its "
            "name; choose another name"
        )
    others = [column for column in row if known[column] != row[column]]
    if others == ["text_amounts"] and row["text_amounts"]:
        option = f" --tenant {row['tenant_id']}" if row["tenant_id"] else ""
        raise SettingsError(
            f"meter {name!r} is there already, and counts no amounts in quotes; to let it: "
            f"processor meter text-amounts {name}{option}"
        )
    if others:
        differences = "; ".join(f"{column}: {known[column]} there, {row[column]} here" for column in others)
        raise SettingsError(
            f"another meter {name!r} is there already ({differences}). A meter stays what it is: retire it "
            "and add this one under a new name; only grace and is_handed_over may change (UPDATE meter, psql)"
        )
