"""Amounts that a meter can't add: their events are rejected, so that none is stored uncounted.

The same bounds stand in the SQL function metered(), which counts: a test holds both together. What is
missing, or no number at all, is the schema's business: it is stored, and shown as a miss of the meter. A
number in quotes is one of these too, unless the meter allows text amounts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from processor.model import Meter
from processor.wire.json_pointer import follow, steps

AMOUNT_LIMIT = Decimal(10) ** 38
"""Amounts are smaller than this, on both sides of zero."""

_LIMIT_BELOW = -AMOUNT_LIMIT

DECIMAL_PLACES_MAX = 38

_PLAIN_MIN, _PLAIN_LIMIT = 1e-20, 1e38
"""Between these a float fits: it has 17 digits at the most, and so fewer decimal places than too many."""

_TEXT_LENGTH_MAX = 1000
_TEXT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?")
"""A number as JSON spells it; the same pattern as in the SQL function text_amount()."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What one meter adds: where it stands in a payload, and what it may be."""

    meter: Meter
    pointer: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Misfit:
    """A number that a meter can't add: where it stands, which rule it breaks, and that in words."""

    pointer: str
    rule: str
    message: str


def amounts_of(meters: Iterable[Meter]) -> Mapping[str, tuple[Amount, ...]]:
    """Arrange those meters that add numbers by event type."""
    found: dict[str, tuple[Amount, ...]] = {}
    for meter in meters:
        pointer = meter.value_pointer
        if pointer is not None:
            amount = Amount(meter, pointer, steps(pointer))
            found[meter.event_type] = (*found.get(meter.event_type, ()), amount)
    return found


def find_misfit(amounts: Iterable[Amount], tenant_id: str, payload: Any) -> Misfit | None:  # noqa: ANN401 - any JSON value
    """Find a number that a meter of this tenant, or a shared one, can't add.

    `payload` has numbers as they were written: int, Decimal, or a float that is the same to the last digit.
    """
    for amount in amounts:
        if amount.meter.tenant_id is None or amount.meter.tenant_id == tenant_id:
            value = follow(payload, amount.steps)
            if amount.meter.text_amounts and isinstance(value, str):
                value = text_amount(value)
            kind = type(value)
            # By its very type: true is no number here, though it is an int there.
            if kind is float or kind is int or kind is Decimal:
                trouble = _trouble(value, allows_corrections=amount.meter.allows_corrections)
                if trouble is not None:
                    where = amount.pointer or "the payload"
                    return Misfit(
                        amount.pointer,
                        f"meter {amount.meter.meter}",
                        f"{where}: {trouble} (meter {amount.meter.meter})",
                    )
    return None


def text_amount(text: str) -> Decimal | None:
    """Give the number that a text spells as JSON does; None: it is no amount, and a miss of the meter."""
    fits = len(text) <= _TEXT_LENGTH_MAX and _TEXT.fullmatch(text)
    return Decimal(text) if fits else None


def _trouble(value: float | Decimal, *, allows_corrections: bool) -> str | None:
    if value < 0 and not allows_corrections:
        return "a negative amount; expected 0 or more"
    if isinstance(value, float):
        if value == 0 or _PLAIN_MIN <= abs(value) < _PLAIN_LIMIT:
            return None
        # Written with the digits that repr gives.
        value = Decimal(repr(value))
    # Compared as they are: arithmetic on a Decimal, abs() too, would round it to 28 digits.
    if value >= AMOUNT_LIMIT or value <= _LIMIT_BELOW:
        return "too large an amount; expected less than 1e38 in size"
    places = -int(value.as_tuple().exponent) if isinstance(value, Decimal) else 0
    if places > DECIMAL_PLACES_MAX:
        return f"an amount with {places} decimal places; expected {DECIMAL_PLACES_MAX} at the most"
    return None
