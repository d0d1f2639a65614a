"""Trials: the envelope and the verdict of a message before it is on a queue.

body, attributes ─▶ Schemas, by the settings and what is said of the queue ─▶ envelope and verdict
                       └─ with a database by its registry, with files by their schemas, else by the form alone

Schemas are tested before they are published, on stored messages and open rejections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from processor.database import migrations
from processor.database.connection import require_all_rows
from processor.database.queries import queries
from processor.decoding.mapping import parse
from processor.devstack.seed import sample
from processor.errors import Reason, SettingsError
from processor.model import Delivery, EventSchema, Message, QueueRules, Registry
from processor.operations.queue_rules import require_name
from processor.operations.registry import require_publishable
from processor.operations.schema_trial import SchemaTrialReport, TrialScope, planned, stored_texts, try_out
from processor.schemas.judge.client import require_usable
from processor.schemas.schema_text import schema_text
from processor.settings import DatabaseSettings, ValidationSettings
from processor.store.registry_rows import read_registry
from processor.store.rows import storable_text
from processor.validation.validator import Schemas
from processor.wire.formats import PULSE, Attribute, Claimed, Envelope, Malformed
from processor.wire.sender_rights import VOID
from processor.wiring import database, make_schemas

STORED, READ = "stored", "read"
"""The good verdicts: would be stored; or readable, without a schema to check."""

_NO_QUEUE = "trial"


@dataclass(frozen=True, slots=True)
class QueueOverrides:
    """Queue rules for this trial only; they override the registry's."""

    maps: tuple[str, ...] = ()
    unwrap: str | None = None
    tenant_id: str | None = None
    event_type: str | None = None

    def rules(self) -> QueueRules:
        """Return the queue rules. Raises SettingsError."""
        tenants = None if self.tenant_id is None else frozenset((self.tenant_id,))
        return QueueRules(self.unwrap, parse(self.maps) or None, tenants, self.event_type)


class GivenSchemas:
    """Schemas by event type, instead of a registry; the key None is for every type except voids.

    Pulses and voids default to our sample schemas. Raises SettingsError for an unusable schema.
    """

    def __init__(self, given: Mapping[str | None, Any], formats: str) -> None:
        for event_type, definition in given.items():
            try:
                require_usable(schema_text(definition), formats)
            except SettingsError as error:
                whose = "the schema given" if event_type is None else f"the schema of {event_type!r}"
                raise SettingsError(f"{whose}: {error}") from None
        ours = {name: sample(name) for name in (PULSE, VOID) if name == VOID or None not in given}
        self._schemas: dict[str | None, EventSchema] = {
            event_type: EventSchema(number, event_type or "", None, 1, schema_text(definition), formats)
            for number, (event_type, definition) in enumerate([*ours.items(), *given.items()])
        }

    def registry(self, found: Envelope | Claimed) -> Registry:
        """Make a registry for one event, with its tenant and the schema version that it names."""
        event_type, version = found.event_type, getattr(found, "schema_version", None)
        tenants = {} if found.tenant_id is None else {found.tenant_id: False}
        schemas = tuple(self._schemas.values())
        schema = self._schemas.get(event_type) or self._schemas.get(None)
        if event_type is not None and schema is not None:
            # With all other schemas, so that their compiled validators stay cached.
            schemas = (*schemas, replace(schema, event_type=event_type, version=version or 1))
        return Registry(0, tenants, schemas)


class Trial:
    """Validates messages of one queue. Raises SettingsError for bad settings, and as `database` does.

    With given schemas no registry is read, and any tenant counts as registered.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        queue: str | None,
        said: QueueOverrides,
        given: GivenSchemas | None = None,
    ) -> None:
        self.by_form = settings.database_url is None and given is None
        if queue is not None and settings.database_url is None:
            raise SettingsError("--queue: the rules of a queue are in the database; set DATABASE_URL too")
        if queue is not None:
            require_name(queue)
        if queue is None and (settings.sqs_queue_url is not None or settings.source_url is not None):
            queue = settings.queue_name()
        self.queue = queue or _NO_QUEUE
        self._given = given
        self._schemas: Schemas = make_schemas(settings)
        registry = Registry(0, {}, ())
        if not self.by_form and given is None:
            with database(settings) as connection:
                registry = _registry(connection)
        known = registry.queues.get(self.queue, QueueRules())
        self.has_rules = known != QueueRules()
        self._queues = {**registry.queues, self.queue: said.rules().over(known)}
        self._schemas.install(replace(registry, queues=self._queues))

    def judge(self, body: bytes, attributes: Mapping[str, Attribute]) -> dict[str, Any]:
        """Return the verdict on one message with its envelope's fields; `payload` and `context` are texts."""
        now = datetime.now(UTC)
        delivery = Delivery(self.queue, _NO_QUEUE, body, "", 1, now, now, attributes)
        envelope = self._schemas.read(delivery)
        found = envelope.claimed if isinstance(envelope, Malformed) else envelope
        if self._given is not None:
            self._schemas.install(replace(self._given.registry(found), queues=self._queues))
        verdict = self._schemas.validate(delivery)
        if isinstance(verdict, Message):
            return _row(STORED, None, found)
        if verdict.new_tenant is not None:
            return _row(STORED, f"registers tenant {verdict.new_tenant}", found)
        if self.by_form and verdict.reason is Reason.UNKNOWN_TENANT:
            return _row(READ, None, found)
        message, errors = verdict.detail["message"], verdict.detail.get("errors", [])
        if self._given is not None and verdict.reason is Reason.UNKNOWN_EVENT_TYPE:
            message = f"no schema is given for event type {found.event_type!r}; expected --schema TYPE=FILE"
        return _row(verdict.reason.value, message, found, errors, verdict.detail.get("error_count", 0))


def _registry(connection: psycopg.Connection[Any]) -> Registry:
    migrations.require_current(connection)
    with connection.transaction():
        return read_registry(connection, queries("save"), version=0)


def try_schema(
    settings: ValidationSettings,
    schema: EventSchema,
    id_scope: Sequence[str],
    *,
    compat: str | None,
    against: Sequence[str],
    since: datetime | None,
    limit: int,
    on_batch: Callable[[str, int], object],
) -> SchemaTrialReport:
    """Test a schema as the next version of its event type on existing rows; publish nothing.

    Raises what `publish_schema` would raise, and as `database` and `try_out` do.
    """
    with database(settings) as connection:
        registry = _registry(connection)
        require_all_rows(connection)
        require_publishable(connection, schema, id_scope, compat)
        now, then = make_schemas(settings), make_schemas(settings)
        now.install(registry)
        asked, registry = planned(registry, schema, id_scope, since, limit)
        then.install(registry)
        return try_out(connection, asked, then, now, against=against, on_batch=on_batch)


def each_stored(
    settings: DatabaseSettings,
    event_type: str,
    tenant_id: str | None,
    since: datetime | None,
    limit: int,
    take: Callable[[str], object],
) -> None:
    """Pass the payloads of the newest stored messages of a type (of one tenant) to `take`, as texts.

    Raises as `database` and `stored_texts` do.
    """
    with database(settings) as connection:
        migrations.require_current(connection)
        require_all_rows(connection)
        which = EventSchema(0, event_type, tenant_id, 0, "")
        for text in stored_texts(connection, TrialScope(which, since=since, limit=limit)):
            take(text)


_FIELDS = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "payload", "context")


def _row(
    verdict: str,
    message: str | None,
    found: object,
    errors: Sequence[Mapping[str, Any]] = (),
    error_count: int | None = 0,
) -> dict[str, Any]:
    row = {"verdict": verdict, "message": message} | {name: getattr(found, name, None) for name in _FIELDS}
    texts = {
        name: storable_text(value, None) if isinstance(value, str) else value for name, value in row.items()
    }
    return texts | {"errors": list(errors), "error_count": error_count}
