"""Changes of the registry: tenants, keys, event types, schemas and rules; one transaction per change."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import psycopg

from processor.database.queries import queries
from processor.errors import NotFound, Reason, SettingsError
from processor.model import EventSchema
from processor.operations.compat import require_compatible
from processor.schemas.judge.client import require_usable
from processor.schemas.schema_text import schema_text
from processor.validation.known_noise import expected
from processor.wire.api_key import new_key
from processor.wire.sender_rights import NEITHER, Rights

_NO_JSON = (Reason.NOT_UTF8, Reason.NOT_JSON, Reason.TOO_LARGE)
_NAME_MAX = 256
_CONDITIONS_BYTES_MAX = 4096
_POINTER = re.compile(r"(/([^/~]|~[01])*)+")


def add_tenant(connection: psycopg.Connection[Any], tenant_id: str, name: str | None = None) -> bool:
    """Add an active tenant; returns whether it is new. An existing tenant stays unchanged.

    Raises SettingsError for an invalid id.
    """
    try:
        cursor = connection.execute(
            queries("registry")["add_tenant"], {"tenant_id": tenant_id, "name": name or tenant_id}
        )
    except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError):
        raise SettingsError(
            f"{tenant_id[:64]!r} is no tenant id; expected 1 to 256 characters and no control characters"
        ) from None
    return cursor.rowcount == 1


def set_tenant_status(connection: psycopg.Connection[Any], tenant_id: str, status: str) -> None:
    """Set a tenant's status, active or suspended. Raises NotFound."""
    parameters = {"tenant_id": tenant_id, "status": status}
    try:
        found = connection.execute(queries("registry")["set_tenant_status"], parameters).fetchone()
    except (psycopg.DataError, UnicodeEncodeError):
        found = None
    if found is None:
        raise NotFound(f"no tenant {tenant_id!r}; `processor tenant list` shows those there are")


def add_key(
    connection: psycopg.Connection[Any], tenant_id: str, name: str = "", rights: Rights = NEITHER
) -> tuple[str, str]:
    """Add an API key to a tenant; returns its id and the key itself, which is not stored.

    Raises NotFound for an unknown tenant, SettingsError if the table refuses the values.
    """
    text, key = new_key()
    parameters = {
        "key_id": key.key_id,
        "tenant_id": tenant_id,
        "name": name,
        "digest": key.digests[1],
        "event_types": None if rights.event_types is None else sorted(rights.event_types),
        "producers": None if rights.producers is None else list(rights.producers),
        "may_void": rights.may_void,
        "may_correct": rights.may_correct,
    }
    try:
        connection.execute(queries("keys")["add_key"], parameters)
    except psycopg.errors.ForeignKeyViolation:
        raise NotFound(f"no tenant {tenant_id!r}; add it first: processor tenant add {tenant_id}") from None
    except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError):
        raise SettingsError(
            f"{name[:64]!r} is no name for a key; expected at most 256 characters and no control characters"
        ) from None
    return key.key_id, text


def revoke_key(connection: psycopg.Connection[Any], key_id: str) -> tuple[str, datetime]:
    """Revoke an API key; returns its tenant and the time of the revocation. Raises NotFound."""
    try:
        found = connection.execute(queries("keys")["revoke_key"], {"key_id": key_id}).fetchone()
    except (psycopg.DataError, UnicodeEncodeError):
        found = None
    if found is None:
        raise NotFound("no API key has this id; `processor key list` shows those there are")
    return found[0], found[1]


def add_rejection_rule(
    connection: psycopg.Connection[Any],
    *,
    reason: str,
    queue: str | None,
    tenant_id: str | None,
    event_type: str | None,
    conditions: Mapping[str, str],
) -> int:
    """Add a rule that discards matching rejections, from the next save on; returns the rule's id.

    `conditions` maps JSON pointers into the body to the text there. Raises SettingsError for a reason without
    conditions, or a rule that can match nothing.
    """
    if not (queue or tenant_id or event_type or conditions):
        raise SettingsError(
            "a reason alone would discard the events of whoever makes a new mistake; name a queue, a tenant, "
            "an event type or a value in the body (--when /pointer=value) too"
        )
    if conditions and reason in _NO_JSON:
        raise SettingsError(f"--when looks into the body, and what is {reason} has none that can be read")
    for at, text in conditions.items():
        if not _POINTER.fullmatch(at):
            raise SettingsError(f"--when {at[:64]!r}: expected a JSON pointer, such as /Event or /a/0/b~1c")
        if not text or expected(text) is None:
            raise SettingsError(
                f"--when {at[:64]}={text[:64]}: expected a text, number or boolean behind the =; "
                "the empty text is '\"\"'"
            )
    for option, name in (("--queue", queue), ("--tenant", tenant_id), ("--event-type", event_type)):
        if name is not None and not 0 < len(name) <= _NAME_MAX:
            raise SettingsError(f"{option}: expected 1 to {_NAME_MAX} characters, and not {len(name)}")
    parameters = {"reason": reason, "queue": queue, "tenant_id": tenant_id, "event_type": event_type}
    try:
        document = orjson.dumps(conditions)
        # PostgreSQL writes a space after each colon and comma.
        if (size := len(document) + 2 * len(conditions) - 1) > _CONDITIONS_BYTES_MAX:
            raise SettingsError(
                f"--when: {size} bytes as JSON, together; expected at most {_CONDITIONS_BYTES_MAX}"
            )
        row = connection.execute(
            queries("rejections")["add_rule"], parameters | {"conditions": document.decode()}
        ).fetchone()
    except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError, orjson.JSONEncodeError):
        raise SettingsError(
            "the database does not take this rule; expected names and values without the control "
            "character NUL, and a reason that a body gives or the registry (not id_conflict, unstorable or "
            "dead_lettered)"
        ) from None
    assert row is not None  # noqa: S101 - INSERT ... RETURNING of one row
    return int(row[0])


def retire_rejection_rule(connection: psycopg.Connection[Any], rule_id: int) -> datetime | None:
    """Retire a rule; its discarded rejections stay discarded. Raises NotFound.

    Returns the time of an earlier removal, None if it was in force.
    """
    row = connection.execute(queries("rejections")["retire_rule"], {"rule_id": rule_id}).fetchone()
    if row is None:
        raise NotFound(f"no rule {rule_id}; `processor rejection rule list` shows those there are")
    retired_at, before = row
    return retired_at if before else None


def publish_schema(
    connection: psycopg.Connection[Any],
    event_type: str,
    definition: Any,  # noqa: ANN401 - any JSON value
    tenant_id: str | None = None,
    id_scope: Sequence[str] = (),
    *,
    formats: str = "assert",
    compat: str | None = None,
    breaking: bool = False,
) -> int:
    """Publish the next version of an event type's schema, and a new event type.

    `formats` "annotate" makes `format` an annotation. `id_scope` has the JSON pointers of the payload values
    within which an id is unique; empty: unchanged, and for a new event type within tenant and producer.
    `compat` is the compatibility mode from this version on; None: unchanged. `breaking` skips the check once.

    Returns the version. Raises SettingsError for an unusable JSON Schema, an invalid event type, or a scope
    that differs from the present one; Incompatible if the version breaks the mode; NotFound for an unknown
    tenant.
    """
    text = schema_text(definition)
    require_usable(text, formats)
    sql = queries("registry")
    parameters = {
        "event_type": event_type,
        "tenant_id": tenant_id,
        "definition": text,
        "formats": formats,
        "compat": compat,
        "id_scope": list(id_scope),
        "description": str(definition.get("description", ""))[:1000] if isinstance(definition, dict) else "",
    }
    try:
        with connection.transaction():
            connection.execute(sql["add_event_type"], parameters)
            connection.execute(sql["lock_event_type"], parameters)
            if id_scope:
                connection.execute(sql["scope_ids"], parameters)
                connection.execute(sql["settle_id_scope"])
            if compat is not None:
                connection.execute(sql["promise_compat"], parameters)
            asked = "none" if breaking else compat
            require_compatible(connection, event_type, tenant_id, text, formats, asked)
            row = connection.execute(sql["publish_schema"], parameters).fetchone()
    except psycopg.errors.ForeignKeyViolation:
        raise _no_tenant(tenant_id) from None
    except psycopg.errors.IntegrityConstraintViolation:
        raise _scope_stays(event_type) from None
    except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError) as error:
        if isinstance(error, psycopg.Error) and error.diag.constraint_name == "event_type_id_scope_fit":
            raise _no_scope(id_scope) from None
        raise _not_taken(event_type, getattr(error, "sqlstate", None)) from None
    assert row is not None  # noqa: S101 - INSERT ... RETURNING of one row
    return int(row[0])


def require_publishable(
    connection: psycopg.Connection[Any],
    schema: EventSchema,
    id_scope: Sequence[str],
    compat: str | None = None,
) -> None:
    """Raise the errors of `publish_schema` without a change; a reader may call it.

    `compat` is the mode to check: "none" for no check; None: the event type's mode.
    """
    event_type, tenant_id = schema.event_type, schema.tenant_id
    require_usable(schema.definition, schema.formats)
    parameters = {
        "event_type": event_type,
        "tenant_id": tenant_id,
        "definition": schema.definition,
        "id_scope": list(id_scope),
    }
    try:
        row = connection.execute(queries("schema_trial")["publishable"], parameters).fetchone()
    except (psycopg.DataError, UnicodeEncodeError) as error:
        raise _not_taken(event_type, getattr(error, "sqlstate", None)) from None
    assert row is not None  # noqa: S101 - a SELECT of one row
    is_taken, tenant_known, scope_fits, scope_stays = row
    if not is_taken:
        raise _not_taken(event_type, psycopg.errors.CheckViolation.sqlstate)
    if not scope_fits:
        raise _no_scope(id_scope)
    if scope_stays:
        raise _scope_stays(event_type)
    if not tenant_known:
        raise _no_tenant(tenant_id)
    require_compatible(connection, event_type, tenant_id, schema.definition, schema.formats, compat)


def _no_tenant(tenant_id: str | None) -> NotFound:
    return NotFound(f"no tenant {tenant_id!r}; add it first: processor tenant add {tenant_id}")


def _scope_stays(event_type: str) -> SettingsError:
    return SettingsError(
        f"event type {event_type!r} has a schema already, and maybe messages that are known by the scope "
        "that its ids have (processor schema show); leave --id-scope out, or publish under a new name"
    )


def _no_scope(id_scope: Sequence[str]) -> SettingsError:
    return SettingsError(
        f"--id-scope {' '.join(id_scope)[:200]}: expected at most 4 JSON pointers of at most 256 "
        "characters, such as /user_id"
    )


def _not_taken(event_type: str, sqlstate: str | None) -> SettingsError:
    return SettingsError(
        f"the database does not take event type {event_type[:64]!r} with this schema "
        f"({sqlstate or 'text'}); expected 1 to 256 characters without control characters, and a definition "
        "without \\u0000"
    )
