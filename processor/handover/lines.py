"""A line as the sink gets it: one JSON object, the same bytes each time, its number digit for digit.

Pulses have names of their own: a meter that adds up /used_amount by product_sku and use_unity makes lines
{tenant_id, product_sku, use_unity, used_amount, ...}; every other one {tenant_id, meter, group, value, ...}.
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
    """What names a line in the table."""

    tenant_id: str
    meter_id: int
    window_start: datetime
    group_key: str
    revision: int

    def key(self, meter: str) -> str:
        """Give the key of a line for which none is noted, as older releases made it."""
        moment = self.window_start.astimezone(UTC).isoformat()
        parts = [self.tenant_id, meter, moment, self.group_key, self.revision]
        return sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class UsageLine:
    """A line of a batch; `value` in PostgreSQL's digits, window times as they are written out."""

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
        """The key by which the sink knows it: the same for ever, and no other line's."""
        return self.line_key or self.id.key(self.meter)

    def json(self, amounts: Amounts) -> bytes:
        """Write it as one JSON object, on one line."""
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
    """Write lines as the body of a request: one JSON array."""
    return b"[" + b",".join(line.json(amounts) for line in lines) + b"]"


def batch_key(line_keys: Iterable[str]) -> str:
    """Give the idempotency key of a batch, which its lines' keys decide, whatever their order."""
    return sha256("".join(sorted(line_keys)).encode()).hexdigest()
