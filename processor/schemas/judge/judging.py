"""Validates payloads against the schema of their event type, and finds the errors.

payload ─▶ cheap by its length and the schema's price? ─▶ valid ─▶ no trouble
               │                                       └▶ invalid, and cheap to search? ─▶ its errors
               └─ no, or a failure ─▶ judge process ─▶ the verdict

An unusable schema, as psql may store one, only rejects its own events.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jsonschema_rs
import structlog
from msgspec import Struct

from processor.errors import MustWait, Reason
from processor.model import EventSchema
from processor.runtime import metrics
from processor.schemas.compiling import compile_schema
from processor.schemas.judge.client import JudgeProcess, shared
from processor.schemas.judge.frames import Broken, Found, NotUnicode, Unusable, Valid
from processor.schemas.judge.process import find_errors
from processor.schemas.schema_text import schema_value
from processor.wire.formats import Envelope

log = structlog.get_logger(__name__)

INLINE_NS_MAX = 50_000_000
"""The limit of the estimated cost while holding the GIL; the worst pair found took a third of it."""

_ERRORS_MAX = 1_500
"""Errors that may be searched for in the worker, at some 25 µs each,"""

_ERRORS_PAYLOAD_MAX, _ERRORS_SCHEMA_MAX = 2 * 1024, 16 * 1024
"""if each quotes at most so many characters."""

_UNUSUAL = re.compile(r"[0-9.]{17}|[0-9][eE][-+]?[0-9]{2}")
"""Numbers that need exact arithmetic: many digits, or large exponents. May match other text too."""

_MESSAGE_MAX = 180


class RejectionCause(Struct, frozen=True, gc=False):
    """Why an event is rejected. `new_tenant` is an unknown tenant that its queue may register."""

    reason: Reason
    detail: Mapping[str, Any]
    new_tenant: str | None = None


_Key: TypeAlias = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """The state of a schema: why it can't be used, or the validator and prices for cheap payloads."""

    words: str | None = None
    validator: jsonschema_rs.Validator | None = None
    price_ns: int = 0
    price_unusual_ns: int | None = None
    errors_max: int | None = None
    """The maximum number of errors of one value; None: too many to search for."""

    def is_cheap(self, text: str) -> bool:
        """Return whether a payload may be validated in the worker."""
        # Two bytes per unit; a character beyond ASCII has up to four.
        pairs = len(text) * (0.5 if text.isascii() else 2)
        if self.validator is None or pairs * self.price_ns > INLINE_NS_MAX:
            return False
        unusual_ns = self.price_unusual_ns
        return (unusual_ns is not None and pairs * unusual_ns <= INLINE_NS_MAX) or not _UNUSUAL.search(text)

    def has_few_errors(self, text: str) -> bool:
        """Return whether the errors of the payload may be searched for in the worker."""
        if self.errors_max is None or len(text) > _ERRORS_PAYLOAD_MAX:
            return False
        values = 1 + text.count(",") + text.count("[") + text.count("{")
        return values * self.errors_max <= _ERRORS_MAX


class Judging:
    """Validates payloads with the installed schemas. Thread-safe."""

    def __init__(self, process: JudgeProcess | None = None) -> None:
        self._process = process or shared()
        self._known: dict[_Key, Known] = {}
        self._named: dict[_Key, tuple[str, str]] = {}
        """The labels of the metric."""
        self._naming = threading.Lock()

    def install(self, schemas: Sequence[EventSchema]) -> None:
        """Drop the compiled schemas that are no longer installed."""
        live = {_key(schema) for schema in schemas}
        self._known = {key: known for key, known in list(self._known.items()) if key in live}
        # Each writer installs, and a tenant's own version may have the number of a shared one.
        with self._naming:
            gone = {key: self._named.pop(key) for key in self._named.keys() - live}
            for labels in set(gone.values()) - set(self._named.values()):
                metrics.schema_unusable.remove(*labels)

    def trouble(
        self, schema: EventSchema, envelope: Envelope, *, may_wait: bool = True
    ) -> RejectionCause | None:
        """Return why a payload is invalid; None: it is valid.

        Raises Stopped, and MustWait if the judge process is needed and `may_wait` is false.
        """
        # One wait per schema, even if `may_wait` is false: else its first events would queue behind slow
        # payloads.
        known = self._known.get(_key(schema)) or self._compile(schema)
        if known.words is not None:
            words = (
                f"version {schema.version} of the schema can't be used; publish a corrected one, then "
                f"replay: {known.words}"
            )
            return _violations(schema, words, [], 0)
        if known.validator is not None and known.is_cheap(envelope.payload):
            try:
                if known.validator.is_valid(envelope.payload_value):
                    return None
                if known.has_few_errors(envelope.payload):
                    found = find_errors(known.validator, envelope.payload_value, len(envelope.payload))
                    return _violation(schema, found)
            except BaseException as error:
                # A panic in Rust is not an Exception. After any failure the judge process decides.
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
        if not may_wait:
            raise MustWait
        return self._refusal(schema, envelope)

    def _refusal(self, schema: EventSchema, envelope: Envelope) -> RejectionCause | None:
        answer = self._process.judge((schema.definition, schema.formats), envelope.payload)
        if isinstance(answer, Valid):
            return None
        if isinstance(answer, NotUnicode):
            words = f"the payload is not valid Unicode: {answer.words}"
            return RejectionCause(Reason.UNSTORABLE, {"message": words})
        if isinstance(answer, Broken):
            log.error("judging_failed", schema_id=schema.schema_id, event_type=schema.event_type)
            self._name(schema)
            words = (
                f"the payload can't be validated by version {schema.version} of the schema: {answer.words}; "
                "correct the schema or the payload, then replay"
            )
            return RejectionCause(Reason.UNSTORABLE, _schema_details(schema) | {"message": words})
        return _violation(schema, answer)

    def _compile(self, schema: EventSchema) -> Known:
        """Compile a schema in the judge process, and also here if payloads may be validated here."""
        found = self._process.compile((schema.definition, schema.formats))
        if isinstance(found, Unusable):
            known = Known(found.words)
            log.error("schema_unusable", schema_id=schema.schema_id, event_type=schema.event_type)
            self._name(schema)
        elif found.price_ns is None:
            known = Known()
        else:
            validator = compile_schema(schema_value(schema.definition), formats=schema.formats)
            errors_max = found.errors_max if len(schema.definition) <= _ERRORS_SCHEMA_MAX else None
            known = Known(None, validator, found.price_ns, found.price_unusual_ns, errors_max)
        # The definition is part of the key, because psql can change a version in place.
        self._known[_key(schema)] = known
        return known

    def _name(self, schema: EventSchema) -> None:
        labels = schema.event_type, str(schema.version)
        with self._naming:
            self._named[_key(schema)] = labels
            metrics.schema_unusable.labels(*labels).set(1)


def _violation(schema: EventSchema, found: Found) -> RejectionCause:
    errors = [{"pointer": at, "rule": rule, "message": message} for at, rule, message in found.errors]
    if not errors:
        words = "the payload violates its schema; finding the errors would take too long"
        return _violations(schema, words, [], None)
    if found.count is None:
        rest = " (a payload this long is searched for its first error only)"
    else:
        rest = f" (and {found.count - 1} more)" if found.count > 1 else ""
    first = errors[0]
    words = f"{first['pointer'] or 'the payload'}: {first['message']}"[:_MESSAGE_MAX] + rest
    return _violations(schema, words, errors, found.count)


def _violations(
    schema: EventSchema, words: str, errors: Sequence[Mapping[str, Any]], count: int | None
) -> RejectionCause:
    detail = _schema_details(schema) | {"message": words, "errors": errors, "error_count": count}
    return RejectionCause(Reason.SCHEMA_VIOLATION, detail)


def _schema_details(schema: EventSchema) -> dict[str, Any]:
    return {"schema_id": schema.schema_id, "schema_version": schema.version}


def _key(schema: EventSchema) -> _Key:
    return schema.schema_id, schema.definition, schema.formats


def one_violation(schema: EventSchema, at: str, rule: str, message: str) -> RejectionCause:
    """Refuse an event for one fault outside the schema's own rules."""
    return _violations(schema, message, [{"pointer": at, "rule": rule, "message": message}], 1)
