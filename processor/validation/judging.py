"""Whether a payload is valid by the schema of its event type, and where it is not.

A schema that can't be used, as psql may have put one in, makes its events rejections and nothing else.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jsonschema_rs
import structlog

from processor.errors import Reason, SettingsError
from processor.model import EventSchema
from processor.validation.compiling import compile_schema
from processor.validation.exact_numbers import comparison_trouble
from processor.validation.schema_text import schema_value
from processor.wire import ERRORS_MAX, Envelope, pointer

log = structlog.get_logger(__name__)

_MESSAGE_MAX = 180

ERRORS_PAYLOAD_MAX = 8 * 1024
"""Characters of a payload whose errors are all looked for, up to this many.

The validator gives them all or one, at some 7 KB and 50 µs each, and one item may break many rules: 8 KiB of
bad items take up to 0.3 s, 1 MiB of them took 2.6 GB and 18 s.
"""

_SEARCHED_DEPTH_MAX = 8

Refusal: TypeAlias = tuple[Reason, dict[str, Any]]
"""Why an event is rejected: the reason, and the detail of the rejection."""

_Key: TypeAlias = tuple[int, str, str]


class Judging:
    """Judges payloads by the schemas that were last installed. Safe to share between threads."""

    def __init__(self) -> None:
        self._compiled: dict[_Key, jsonschema_rs.Validator | str] = {}

    def install(self, schemas: Sequence[EventSchema]) -> None:
        """Forget what was compiled of schemas that are there no more."""
        live = {_key(schema) for schema in schemas}
        self._compiled = {key: known for key, known in list(self._compiled.items()) if key in live}

    def trouble(self, schema: EventSchema, envelope: Envelope) -> Refusal | None:
        """Say why the payload of an event breaks a schema; None: it is valid."""
        validator = self._validator(schema)
        which = {"schema_id": schema.schema_id, "schema_version": schema.version}
        if isinstance(validator, str):
            return Reason.SCHEMA_VIOLATION, which | {
                "message": f"version {schema.version} of the schema can't be used; publish a corrected one, "
                f"then replay: {validator}",
                "errors": [],
                "error_count": 0,
            }
        if words := comparison_trouble(schema.definition, envelope.payload, envelope.payload_value):
            return Reason.UNSTORABLE, {"message": words}
        try:
            if validator.is_valid(envelope.payload_value):
                return None
            found = _errors(validator, envelope)
        except ValueError as error:
            # Lone surrogates are legal JSON, but UTF-8, and so no validator and no table, can carry them.
            return Reason.UNSTORABLE, {"message": f"the payload can't be read as Unicode text: {error}"}
        errors = [
            {
                "pointer": pointer(error.instance_path),
                "rule": pointer(error.schema_path),
                "message": error.message,
            }
            for error in found[:ERRORS_MAX]
        ]
        if not errors:
            return Reason.SCHEMA_VIOLATION, which | {
                "message": "the payload breaks its schema; it is too long and too deep to search for where",
                "errors": [],
                "error_count": None,
            }
        first = errors[0]
        if len(envelope.payload) > ERRORS_PAYLOAD_MAX:
            count, rest = None, " (a payload this long is searched for its first error only)"
        else:
            count, rest = len(found), f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return Reason.SCHEMA_VIOLATION, which | {
            "message": f"{first['pointer'] or 'the payload'}: {first['message']}"[:_MESSAGE_MAX] + rest,
            "errors": errors,
            "error_count": count,
        }

    def _validator(self, schema: EventSchema) -> jsonschema_rs.Validator | str:
        # Compiling costs 5 ms, a thousand times a validation. The definition is part of the key, because
        # psql can change a row that should have been a new version.
        key = _key(schema)
        known = self._compiled.get(key)
        if known is None:
            try:
                known = compile_schema(schema_value(schema.definition), formats=schema.formats)
            except SettingsError as error:
                known = str(error)
                log.error(  # noqa: TRY400 - not a crash: the traceback would say nothing more
                    "schema_unusable", schema_id=schema.schema_id, event_type=schema.event_type
                )
            self._compiled[key] = known
        return known


def _key(schema: EventSchema) -> _Key:
    return schema.schema_id, schema.definition, schema.formats


def one_violation(schema: EventSchema, at: str, rule: str, message: str) -> dict[str, Any]:
    """Give the detail of a rejection for one fault that was found beside the schema's own rules."""
    return {
        "schema_id": schema.schema_id,
        "schema_version": schema.version,
        "message": message,
        "errors": [{"pointer": at, "rule": rule, "message": message}],
        "error_count": 1,
    }


def _errors(validator: jsonschema_rs.Validator, envelope: Envelope) -> list[jsonschema_rs.ValidationError]:
    if len(envelope.payload) <= ERRORS_PAYLOAD_MAX:
        return list(validator.iter_errors(envelope.payload_value))
    if _is_deep(envelope.payload_value):
        return []
    try:
        validator.validate(envelope.payload_value)
    except jsonschema_rs.ValidationError as error:
        return [error]
    return []


def _is_deep(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    # At each level the search looks at all that is below once more, and copies it: 60 levels took 3 s.
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_SEARCHED_DEPTH_MAX):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
