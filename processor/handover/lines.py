"""Lines: each is one JSON object for the sink, with the same bytes and the same digits at every attempt.

A meter that adds up /used_amount by product_sku and use_unity (a pulse) makes lines
{tenant_id, product_sku, use_unity, used_amount, ...}; others make {tenant_id, meter, group, value, ...}.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import orjson

Amounts = Literal["number", "string"]

_PULSE_GROUP = {"product_sku", "use_unity"}
_PULSE_POINTER = "/used_amount"


@dataclass(frozen=True, slots=True)
class LineId:
    """The primary key of a line."""

    tenant_id: str
    meter_id: int
    window_start: datetime
    group_key: str
    revision: int

    def key(self, meter: str) -> str:
        """Compute the key of a line without a stored one, as older releases did."""
        moment = self.window_start.astimezone(UTC).isoformat()
        parts = [self.tenant_id, meter, moment, self.group_key, self.revision]
        return sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class UsageLine:
    """A line of a batch; `value` has PostgreSQL's digits, window times are RFC 3339 texts."""

    id: LineId
    meter: str
    group_names: Sequence[str]
    value_pointer: str | None
    value: str
    messages: int
    window_start: str
    window_end: str
    line_key: str | None = None

    @property
    def key(self) -> str:
        """The line's idempotency key: unique, and it never changes."""
        return self.line_key or self.id.key(self.meter)

    def json(self, amounts: Amounts) -> bytes:
        """Encode the line as one JSON object without line breaks."""
        value = self.value if amounts == "string" else orjson.Fragment(self.value)
        return orjson.dumps(
            {
                "tenant_id": self.id.tenant_id,
                **self._what(value),
                "window_start": self.window_start,
                "window_end": self.window_end,
                "revision": self.id.revision,
                "messages": self.messages,
                "key": self.key,
            }
        )

    def _what(self, value: object) -> dict[str, Any]:
        group = json.loads(self.id.group_key)
        if set(self.group_names) == _PULSE_GROUP and self.value_pointer == _PULSE_POINTER:
            return {
                "product_sku": group["product_sku"],
                "use_unity": group["use_unity"],
                "used_amount": value,
            }
        return {
            "meter": self.meter,
            "group": {name: group[name] for name in self.group_names},
            "value": value,
        }


def array_of(lines: Iterable[UsageLine], amounts: Amounts) -> bytes:
    """Encode lines as the body of a request: one JSON array."""
    return b"[" + b",".join(line.json(amounts) for line in lines) + b"]"


def batch_key(line_keys: Iterable[str]) -> str:
    """Compute a batch's idempotency key from its lines' keys, independent of their order."""
    return sha256("".join(sorted(line_keys)).encode()).hexdigest()
