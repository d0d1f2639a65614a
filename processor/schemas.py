"""The verdict: whether a delivery is an event of a known tenant, in the shape that its schema asks for.

    Delivery ─▶ wire.decode ─▶ tenant? ─▶ event type? ─▶ schema version? ─▶ payload ─▶ Message
                     └────────────┴───────────┴───────────────┴────────────────┴─────▶ Rejection

All answers come from one registry that is held in memory and named by its version. Nothing is asked of the
database per event: `Store.save` compares versions, and installs a newer registry where ours is stale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson
import structlog

from processor.errors import Reason, SettingsError
from processor.model import Delivery, EventSchema, Message, Registry, Rejection, Verdict
from processor.wire import ERRORS_MAX, Claimed, Envelope, Malformed, decode, pointer

log = structlog.get_logger(__name__)

_REGEX_BYTES_MAX = 2 * 1024 * 1024


def compile_schema(definition: Any) -> jsonschema_rs.Draft202012Validator:  # noqa: ANN401 - any JSON value
    """Compile a JSON Schema (2020-12), with formats checked.

    Raises SettingsError where it is no valid schema, has a `$ref` to somewhere else (nothing is ever
    fetched), or a pattern that a linear-time engine can't run (look-around, back-references).
    """
    try:
        jsonschema_rs.meta.validate(definition)
        return jsonschema_rs.Draft202012Validator(
            definition,
            validate_formats=True,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES_MAX),
        )
    except jsonschema_rs.ValidationError as error:
        where = pointer(error.instance_path) or "(root)"
        raise SettingsError(f"not a usable JSON Schema 2020-12: at {where}: {error.message}") from None
    except (jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise SettingsError(f"not a usable JSON Schema 2020-12: {error}") from None


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One registry, arranged for the questions that a delivery asks of it."""

    registry: Registry
    versions: Mapping[tuple[str, str | None], Mapping[int, EventSchema]]

    @classmethod
    def of(cls, registry: Registry) -> "_Lookup":
        versions: dict[tuple[str, str | None], dict[int, EventSchema]] = {}
        for schema in sorted(registry.schemas, key=lambda schema: schema.version):
            versions.setdefault((schema.event_type, schema.tenant_id), {})[schema.version] = schema
        return cls(registry, versions)

    def applicable(self, event_type: str, tenant_id: str) -> Mapping[int, EventSchema]:
        """Give the versions that hold for a tenant, oldest first: its own alone, else the shared ones."""
        return self.versions.get((event_type, tenant_id)) or self.versions.get((event_type, None)) or {}


class Schemas:
    """Validates deliveries against the registry that was last installed. Safe to share between threads."""

    def __init__(self, *, body_bytes_max: int, json_depth_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._json_depth_max = json_depth_max
        self._lookup = _Lookup.of(Registry(0, {}, frozenset(), ()))
        self._compiled: dict[tuple[int, str], jsonschema_rs.Draft202012Validator | str] = {}

    def install(self, registry: Registry) -> None:
        """Answer from this registry from now on; verdicts name its version."""
        # One assignment: a thread in the middle of a verdict keeps the lookup that it began with.
        self._lookup = _Lookup.of(registry)

    def validate(self, delivery: Delivery) -> Verdict:
        """Give the verdict on one delivery. Bad content is a Rejection; nothing that a sender does raises."""
        lookup = self._lookup
        envelope = decode(
            delivery.body,
            delivery.attributes,
            size_bytes_max=self._body_bytes_max,
            depth_max=self._json_depth_max,
        )
        if isinstance(envelope, Malformed):
            return Rejection(
                delivery, lookup.registry.version, envelope.reason, envelope.detail, envelope.claimed
            )
        # Without an id of its own a message is known by its delivery: then only redeliveries are refused.
        message_id = envelope.message_id or f"{delivery.queue}/{delivery.delivery_id}"
        found = self._judge(lookup, envelope)
        if isinstance(found, EventSchema):
            return Message(
                delivery,
                lookup.registry.version,
                tenant_id=envelope.tenant_id,
                message_id=message_id,
                producer=envelope.producer,
                event_type=envelope.event_type,
                schema_id=found.schema_id,
                occurred_at=envelope.occurred_at,
                payload=envelope.payload,
                context=orjson.dumps(envelope.context, default=str).decode() if envelope.context else None,
            )
        reason, detail = found
        claimed = Claimed(envelope.tenant_id, envelope.event_type, message_id, envelope.producer)
        return Rejection(delivery, lookup.registry.version, reason, detail, claimed)

    def _judge(self, lookup: _Lookup, envelope: Envelope) -> EventSchema | tuple[Reason, dict[str, Any]]:
        tenant_id, event_type = envelope.tenant_id, envelope.event_type
        suspended = lookup.registry.suspended.get(tenant_id)
        if suspended is None:
            return Reason.UNKNOWN_TENANT, {
                "message": f"no tenant {tenant_id!r}; add it (processor tenant add), then replay"
            }
        if suspended:
            return Reason.TENANT_SUSPENDED, {
                "message": f"tenant {tenant_id!r} is suspended; "
                "resume it (processor tenant resume), then replay"
            }
        versions = lookup.applicable(event_type, tenant_id)
        if not versions:
            return Reason.UNKNOWN_EVENT_TYPE, {
                "message": f"no schema of event type {event_type!r} applies to tenant {tenant_id!r}; "
                "publish one (processor schema publish), then replay"
            }
        if envelope.schema_version is None:
            schema = versions[max(versions)]
        elif envelope.schema_version in versions:
            schema = versions[envelope.schema_version]
        else:
            known = ", ".join(str(version) for version in list(versions)[-10:])
            return Reason.UNKNOWN_SCHEMA_VERSION, {
                "message": f"event type {event_type!r} has no schema version {envelope.schema_version} "
                f"for tenant {tenant_id!r}; there is {known}"
            }
        return self._violations(schema, envelope.payload_value) or schema

    def _violations(
        self,
        schema: EventSchema,
        payload: Any,  # noqa: ANN401 - any JSON value
    ) -> tuple[Reason, dict[str, Any]] | None:
        validator = self._validator(schema)
        which = {"schema_id": schema.schema_id, "schema_version": schema.version}
        if isinstance(validator, str):
            return Reason.SCHEMA_VIOLATION, which | {
                "message": f"version {schema.version} of the schema can't be used; publish a corrected one, "
                f"then replay: {validator}",
                "errors": [],
                "error_count": 0,
            }
        try:
            if validator.is_valid(payload):
                return None
            errors, count = [], 0
            for error in validator.iter_errors(payload):
                count += 1
                if count <= ERRORS_MAX:
                    errors.append(
                        {
                            "pointer": pointer(error.instance_path),
                            "rule": pointer(error.schema_path),
                            "message": error.message,
                        }
                    )
        except ValueError as error:
            # Lone surrogates are legal JSON, but UTF-8, and so no validator and no table, can carry them.
            return Reason.UNSTORABLE, {"message": f"the payload can't be read as Unicode text: {error}"}
        first = errors[0]
        message = f"{first['pointer'] or 'the payload'}: {first['message']}"
        return Reason.SCHEMA_VIOLATION, which | {
            "message": message if count == 1 else f"{message} (and {count - 1} more)",
            "errors": errors,
            "error_count": count,
        }

    def _validator(self, schema: EventSchema) -> jsonschema_rs.Draft202012Validator | str:
        # Compiling costs 5 ms, a thousand times a validation. The definition is part of the key, because
        # psql can change a row that should have been a new version.
        key = (schema.schema_id, schema.definition)
        known = self._compiled.get(key)
        if known is None:
            try:
                known = compile_schema(orjson.loads(schema.definition))
            except (SettingsError, orjson.JSONDecodeError) as error:
                known = str(error)
                log.warning("schema_unusable", schema_id=schema.schema_id, event_type=schema.event_type)
            self._compiled[key] = known
        return known
