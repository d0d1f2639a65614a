"""A trial: which envelope a message would become, and what would become of it, before it is on a queue.

body, attributes ─▶ Schemas, by the settings and what is said of the queue ─▶ envelope and verdict
                       └─ with a database by its registry, without one by the form alone

And a schema before it is published, on what is stored and what was rejected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from processor import migrations
from processor.columns import storable_text
from processor.connection import require_all_rows
from processor.errors import Reason, SettingsError
from processor.mapping import parse
from processor.model import Delivery, EventSchema, Message, QueueRules, Registry
from processor.queries import queries
from processor.queue_rules import require_name
from processor.registry import require_publishable
from processor.registry_rows import read_registry
from processor.schema_trial import Report, planned, try_out
from processor.schemas import Schemas
from processor.settings import Settings
from processor.wire import Attribute, Malformed
from processor.wiring import database, make_schemas

STORED, READ = "stored", "read"
"""The good verdicts: what would be stored, and what could be read where nobody knows more."""

_NO_QUEUE = "trial"


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of the queue for this trial alone; it goes before what the registry says."""

    maps: tuple[str, ...] = ()
    unwrap: str | None = None
    tenant_id: str | None = None
    event_type: str | None = None

    def rules(self) -> QueueRules:
        """Give it as rules. Raises SettingsError, in words."""
        tenants = None if self.tenant_id is None else frozenset((self.tenant_id,))
        return QueueRules(self.unwrap, parse(self.maps) or None, tenants, self.event_type)


class Trial:
    """Tries messages of one queue. Raises SettingsError where settings contradict, and as `database` does."""

    def __init__(self, settings: Settings, queue: str | None, said: Said) -> None:
        self.by_form = settings.database_url is None
        if queue is not None and self.by_form:
            raise SettingsError("--queue: the rules of a queue are in the database; set DATABASE_URL too")
        if queue is not None:
            require_name(queue)
        if queue is None and (settings.sqs_queue_url is not None or settings.source_url is not None):
            queue = settings.queue_name()
        self.queue = queue or _NO_QUEUE
        self._schemas: Schemas = make_schemas(settings)
        registry = Registry(0, {}, ())
        if not self.by_form:
            with database(settings) as connection:
                registry = _registry(connection)
        known = registry.queues.get(self.queue, QueueRules())
        self.has_rules = known != QueueRules()
        rules = said.rules().over(known)
        self._schemas.install(replace(registry, queues={**registry.queues, self.queue: rules}))

    def judge(self, body: bytes, attributes: Mapping[str, Attribute]) -> dict[str, Any]:
        """Give the verdict on one message, and its envelope's fields; `payload` and `context` are texts."""
        now = datetime.now(UTC)
        delivery = Delivery(self.queue, _NO_QUEUE, body, "", 1, now, now, attributes)
        envelope, verdict = self._schemas.read(delivery), self._schemas.validate(delivery)
        found = envelope.claimed if isinstance(envelope, Malformed) else envelope
        if isinstance(verdict, Message):
            return _row(STORED, None, found)
        if verdict.newcomer is not None:
            return _row(STORED, f"registers tenant {verdict.newcomer}", found)
        if self.by_form and verdict.reason is Reason.UNKNOWN_TENANT:
            return _row(READ, None, found)
        return _row(verdict.reason.value, verdict.detail["message"], found)


def _registry(connection: psycopg.Connection[Any]) -> Registry:
    migrations.require_current(connection)
    with connection.transaction():
        return read_registry(connection, queries("save"), version=0)


def try_schema(
    settings: Settings,
    schema: EventSchema,
    id_scope: Sequence[str],
    *,
    against: Sequence[str],
    since: datetime | None,
    limit: int,
    on_batch: Callable[[str, int], object],
) -> Report:
    """Try a schema on what is there, as the next version of its event type; nothing is published.

    Raises what `publish_schema` would raise, and as `database` and `try_out` do.
    """
    with database(settings) as connection:
        registry = _registry(connection)
        require_all_rows(connection)
        require_publishable(connection, schema, id_scope)
        now, then = make_schemas(settings), make_schemas(settings)
        now.install(registry)
        asked, registry = planned(registry, schema, id_scope, since, limit)
        then.install(registry)
        return try_out(connection, asked, then, now, against=against, on_batch=on_batch)


_FIELDS = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "payload", "context")


def _row(verdict: str, message: str | None, found: object) -> dict[str, Any]:
    row = {"verdict": verdict, "message": message} | {name: getattr(found, name, None) for name in _FIELDS}
    return {
        name: storable_text(value, None) if isinstance(value, str) else value for name, value in row.items()
    }
