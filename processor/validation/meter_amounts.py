"""Rejects events with amounts that a meter can't add, so that none is stored uncounted.

The SQL function metered() has the same bounds; a test compares them. A missing value, or a value that is not
a number, is left to the schema: the event is stored, and counts as a miss of the meter. So is a number in
quotes, unless the meter allows text amounts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from processor.model import Meter
from processor.wire.json_pointer import follow, steps

AMOUNT_LIMIT = Decimal(10) ** 38
"""The absolute value of an amount is below this."""

_LIMIT_BELOW = -AMOUNT_LIMIT

DECIMAL_PLACES_MAX = 38

_PLAIN_MIN, _PLAIN_LIMIT = 1e-20, 1e38
"""A float between these fits: it has at most 17 digits, and so few enough decimal places."""

_TEXT_LENGTH_MAX = 1000
_TEXT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?")
"""A JSON number; the SQL function text_amount() has the same pattern."""


@dataclass(frozen=True, slots=True)
class Amount:
    """The value that one meter adds: its place in a payload, and its limits."""

    meter: Meter
    pointer: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Misfit:
    """A number that a meter can't add: its pointer, the violated rule, and a message."""

    pointer: str
    rule: str
    message: str


def amounts_of(meters: Iterable[Meter]) -> Mapping[str, tuple[Amount, ...]]:
    """Group the meters that add numbers by event type."""
    found: dict[str, tuple[Amount, ...]] = {}
    for meter in meters:
        pointer = meter.value_pointer
        if pointer is not None:
            amount = Amount(meter, pointer, steps(pointer))
            found[meter.event_type] = (*found.get(meter.event_type, ()), amount)
    return found


def find_misfit(amounts: Iterable[Amount], tenant_id: str, payload: Any) -> Misfit | None:  # noqa: ANN401 - any JSON value
    """Find a number that a meter of this tenant, or a shared one, can't add.

    `payload` has exact numbers: int, Decimal, or a float that is equal to the last digit.
    """
    for amount in amounts:
        if amount.meter.tenant_id is None or amount.meter.tenant_id == tenant_id:
            value = follow(payload, amount.steps)
            if amount.meter.text_amounts and isinstance(value, str):
                value = text_amount(value)
            kind = type(value)
            # By exact type: true is not a number here, though bool is a subclass of int.
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
    """Parse an amount in a string as JSON; None: not an amount, and a miss of the meter."""
    fits = len(text) <= _TEXT_LENGTH_MAX and _TEXT.fullmatch(text)
    return Decimal(text) if fits else None


def _trouble(value: float | Decimal, *, allows_corrections: bool) -> str | None:
    if value < 0 and not allows_corrections:
        return "a negative amount; expected 0 or more"
    if isinstance(value, float):
        if value == 0 or _PLAIN_MIN <= abs(value) < _PLAIN_LIMIT:
            return None
        # Formatted with the digits of repr.
        value = Decimal(repr(value))
    # Compared directly: arithmetic on a Decimal, also abs(), would round it to 28 digits.
    if value >= AMOUNT_LIMIT or value <= _LIMIT_BELOW:
        return "the amount is too large; expected an absolute value below 1e38"
    places = -int(value.as_tuple().exponent) if isinstance(value, Decimal) else 0
    if places > DECIMAL_PLACES_MAX:
        return f"an amount with {places} decimal places; expected at most {DECIMAL_PLACES_MAX}"
    return None
