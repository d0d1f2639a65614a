"""The reader of a sink's lines: JSON as it was sent, one object or one array per line of text.

{"key", "tenant_id", "product_sku", "use_unity", "used_amount", ...}    of a pulse
{"key", "tenant_id", "meter", "group", "value", ...}                    of another meter
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from processor.errors import SettingsError

_KEY = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"-?\d{1,60}(\.\d{1,60})?([eE][+-]?\d{1,2})?")
_COUNT = re.compile(r"-?\d{1,18}")
_REVISION = re.compile(r"[1-9]\d{0,8}")


@dataclass(frozen=True, slots=True)
class SinkLine:
    """The members of a line for reconciliation; `meter` is None for a pulse. Numbers keep their digits."""

    key: str
    tenant_id: str
    meter: str | None
    group: str
    window_start: datetime
    revision: int
    value: str
    messages: int

    def row(self) -> tuple[object, ...]:
        """Return the columns for COPY."""
        return (
            self.key, self.tenant_id, self.meter, self.group, self.window_start, self.revision, self.value,
            self.messages,
        )  # fmt: skip


def read_lines(texts: Iterable[str | bytes]) -> Iterator[SinkLine]:
    """Yield lines, each key once. Raises SettingsError for an invalid line or a key with two contents."""
    known: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        for document in _documents(text, number):
            line = _line(document, number)
            content = hash(line)
            if line.key not in known:
                known[line.key] = content
                yield line
            elif known[line.key] != content:
                raise SettingsError(f"line {number}: the key {line.key} stands for two contents in this file")


def _documents(text: str | bytes, number: int) -> list[Any]:
    if not text.strip():
        return []
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        raise _no_line(number, "JSON") from None
    return found if isinstance(found, list) else [found]


def _line(document: object, number: int) -> SinkLine:
    if not isinstance(document, dict):
        raise _no_line(number, "an object")
    meter, value, group = None, document.get("used_amount"), document.get("group")
    if value is not None:
        group = {name: document.get(name) for name in ("product_sku", "use_unity")}
    else:
        meter, value = _text(document, "meter", number), document.get("value")
    if not isinstance(group, dict) or not all(isinstance(text, str) for text in group.values()):
        raise _no_line(number, "the values of its group as texts")
    return SinkLine(
        key=_text(document, "key", number, _KEY),
        tenant_id=_text(document, "tenant_id", number),
        meter=meter,
        group=json.dumps(group),
        window_start=_moment(_text(document, "window_start", number), number),
        revision=int(_text(document, "revision", number, _REVISION)),
        value=_text({"value": value}, "value", number, _NUMBER),
        messages=int(_text(document, "messages", number, _COUNT)),
    )


def _text(document: dict[str, Any], name: str, number: int, form: re.Pattern[str] | None = None) -> str:
    value = document.get(name)
    if not isinstance(value, str) or (form is not None and not form.fullmatch(value)):
        raise _no_line(number, f'its "{name}" as it was sent')
    return value


def _moment(text: str, number: int) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _no_line(number, 'its "window_start" as it was sent') from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _no_line(number: int, expected: str) -> SettingsError:
    # The text itself may be a tenant's data, so the message does not quote it.
    return SettingsError(f"line {number} is no line of usage; expected {expected}")
