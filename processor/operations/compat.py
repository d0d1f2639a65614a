"""Compatibility: the mode of an event type, and its enforcement for new schema versions."""

from collections.abc import Sequence
from typing import Any

import psycopg

from processor.database.queries import queries
from processor.errors import Incompatible, NotFound
from processor.schemas.compare.comparing import Comparison, Version, compare
from processor.schemas.compare.compatibility import Verdict
from processor.schemas.wording import shortened

_TOLD_MAX = 10
_EXAMPLE_MAX = 200


def latest(connection: psycopg.Connection[Any], event_type: str, tenant_id: str | None) -> Version | None:
    """Return the latest version that applies, the tenant's own or else the shared one; None: no version."""
    return _version(connection, event_type, tenant_id, None)


def version(
    connection: psycopg.Connection[Any], event_type: str, tenant_id: str | None, number: int
) -> Version:
    """Return one version, a tenant's own or a shared one. Raises NotFound."""
    if found := _version(connection, event_type, tenant_id, number):
        return found
    whose = f"tenant {tenant_id!r}'s own" if tenant_id else "shared"
    raise NotFound(
        f"no version {number} of event type {event_type!r} is {whose}; "
        "`processor schema list` shows what there is"
    )


def require_compatible(
    connection: psycopg.Connection[Any],
    event_type: str,
    tenant_id: str | None,
    definition: str,
    formats: str,
    compat: str | None = None,
) -> None:
    """Compare a new version with its predecessor, by the event type's compatibility mode.

    `compat` overrides the mode. Raises Incompatible if the mode is broken or can't be proven. The caller
    holds the event type's lock, so that no other version is published in between.
    """
    if compat is None:
        row = connection.execute(queries("registry")["compat"], {"event_type": event_type}).fetchone()
        compat = row[0] if row else "none"
    old = latest(connection, event_type, tenant_id) if compat != "none" else None
    if old is None:
        return
    found = compare(old, Version("the new version", definition, formats))
    if broken := found.broken(compat):
        raise Incompatible(_refusal(event_type, compat, old, found, broken))


def told(promise: str, verdict: Verdict, old: str, new: str) -> str:
    """Describe in one line whether two versions keep a compatibility mode."""
    taker, taken = (new, old) if promise == "backward" else (old, new)
    match verdict.answer:
        case "yes":
            return f"yes: {taker} takes all that {taken} takes"
        case "no" if verdict.example is not None:
            return f"no: {taker} refuses {shortened(verdict.example, _EXAMPLE_MAX)}, which {taken} takes"
        case "no":
            return f"no: {taker} refuses payloads that {taken} takes"
        case _:
            return f"unknown: it can't be proven that {taker} takes all that {taken} takes"


def _refusal(
    event_type: str, compat: str, old: Version, found: Comparison, broken: Sequence[tuple[str, Verdict]]
) -> str:
    promises = {promise: told(promise, verdict, old.name, "the new version") for promise, verdict in broken}
    breaking = [
        str(one)
        for one in found.differences
        if ("backward" in promises and one.narrows) or ("forward" in promises and one.widens)
    ]
    more = [f"and {len(breaking) - _TOLD_MAX} more"] if len(breaking) > _TOLD_MAX else []
    return "; ".join(
        [
            f"not published: event type {event_type!r} asks for --compat {compat}",
            *(f"{promise}: {words}" for promise, words in promises.items()),
            *breaking[:_TOLD_MAX],
            *more,
            f"see processor schema diff {event_type} latest FILE, or add --breaking if this is meant",
        ]
    )


def _version(
    connection: psycopg.Connection[Any], event_type: str, tenant_id: str | None, number: int | None
) -> Version | None:
    parameters = {"event_type": event_type, "tenant_id": tenant_id, "version": number}
    try:
        row = connection.execute(queries("registry")["compared_schema"], parameters).fetchone()
    except (psycopg.DataError, UnicodeEncodeError):
        return None
    if row is None:
        return None
    whose = f"{row[1]}'s" if row[1] else "the shared"
    return Version(f"{whose} version {row[0]}", row[2], row[3])
