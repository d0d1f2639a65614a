"""Rejects voids that name no message where meters count: they could never cancel one.

The statement that cancels (sql/queries/save.sql) has the same limits; a test compares them.
"""

from typing import Any

from processor.validation.meter_amounts import Misfit

_CHARS_MAX = 256


def find_void_misfit(payload: Any) -> Misfit | None:  # noqa: ANN401 - any JSON value
    """Return why the payload of a void names no message; None: it names one."""
    if not isinstance(payload, dict):
        return _misfit("", "expected an object with message_id")
    if not _is_key(payload.get("message_id")) or not payload["message_id"]:
        return _misfit(
            "/message_id", f"expected the id of a message, a string of 1 to {_CHARS_MAX} characters"
        )
    if "producer" in payload and not _is_key(payload["producer"]):
        return _misfit(
            "/producer", f"expected a producer, a string of at most {_CHARS_MAX} characters, or none"
        )
    return None


def _is_key(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _CHARS_MAX


def _misfit(pointer: str, expected: str) -> Misfit:
    return Misfit(pointer, "void", f"{pointer or 'the payload'}: the void cancels nothing; {expected}")
