"""Numbers that only exact arithmetic can tell apart, which the validator compares each with each."""

from decimal import Decimal
from typing import Any

_COMPARED_MAX = 3_000_000
"""Such numbers times their digits that are compared under uniqueItems, which takes half a second: 400 numbers
of 20 digits, or 60 of 900. It grows by the square: 4,900 numbers of 30 digits take minutes."""

LENGTH_MIN = 8_000
"""No text that is shorter has so many."""


def too_many_to_compare(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Count the numbers beyond 64 bits in a value, if too many to be compared; None: they are not."""
    count = digits = 0
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as members:
                pending.extend(members.values())
            case list() as elements:
                pending.extend(elements)
            case bool():
                pass
            case int() as number if not -(2**63) <= number < 2**64:
                count += 1
                # Good enough, and no number is written out for it.
                digits += number.bit_length() * 3 // 10
            case Decimal() as number if Decimal(repr(float(number))) != number:
                count += 1
                digits += len(number.as_tuple().digits)
    return count if count * digits > _COMPARED_MAX else None
