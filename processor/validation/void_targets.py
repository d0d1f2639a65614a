"""Voids that name no message: they could never cancel one, so they are rejected where meters count.

The same limits stand in the statement that cancels (sql/queries/save.sql): a test holds both together.
"""

from typing import Any

from processor.validation.meter_amounts import Misfit

_CHARS_MAX = 256


def find_void_misfit(payload: Any) -> Misfit | None:  # noqa: ANN401 - any JSON value
    """Say why the payload of a void names no message; None: it names one."""
    if not isinstance(payload, dict):
        return _misfit("", "expected an object with message_id")
    if not _is_key(payload.get("message_id")) or not payload["message_id"]:
        return _misfit("/message_id", f"expected the id of a message, a text of 1 to {_CHARS_MAX} characters")
    if "producer" in payload and not _is_key(payload["producer"]):
        return _misfit("/producer", f"expected a producer, a text of up to {_CHARS_MAX} characters, or none")
    return None


def _is_key(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _CHARS_MAX


def _misfit(pointer: str, expected: str) -> Misfit:
    return Misfit(pointer, "void", f"{pointer or 'the payload'}: a void that cancels nothing; {expected}")
