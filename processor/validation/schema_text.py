"""The text of a schema and its value, with every digit: read as strictly as payloads are."""

from typing import Any

import msgspec

from processor import strict_json
from processor.errors import SettingsError

DEPTH_MAX = 64
_VALUES_MAX = 1_000_000
_BYTE_ORDER_MARK = "\ufeff"
_encode = msgspec.json.Encoder(decimal_format="number").encode


def schema_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Read the JSON text of a schema; numbers as `strict_json.read` gives them.

    Raises SettingsError where it is not JSON, a key comes twice, or a number has too many digits.
    """
    try:
        return strict_json.read(text.removeprefix(_BYTE_ORDER_MARK), DEPTH_MAX, _VALUES_MAX).value
    except strict_json.JsonFault as fault:
        raise SettingsError(f"not JSON that can be used: {fault}") from None


def schema_text(definition: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a schema as JSON, with every digit of its numbers."""
    return _encode(definition).decode()
