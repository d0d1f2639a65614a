"""Numbers that only exact arithmetic can tell apart, which the validator compares each with each."""

from decimal import Decimal
from typing import Any

_COMPARED_MAX = 3_000_000
"""Such numbers times their digits that are compared under uniqueItems, which takes half a second: 400 numbers
of 20 digits, or 60 of 900. It grows by the square: 4,900 numbers of 30 digits take minutes."""

_LENGTH_MIN = 8_000
"""No text that is shorter has so many."""


def comparison_trouble(definition: str, text: str, value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Say that a value has too many numbers for what its schema asks of them; None: it has not."""
    if '"uniqueItems"' not in definition or len(text) < _LENGTH_MIN:
        return None
    count, digits = _beyond_64_bits(value)
    if count * digits <= _COMPARED_MAX:
        return None
    return (
        f"{count} numbers of the payload are beyond 64 bits, too many to be compared each with each, as "
        "uniqueItems in the schema asks; send them in quotes, or with fewer digits"
    )


def _beyond_64_bits(value: Any) -> tuple[int, int]:  # noqa: ANN401 - any JSON value
    """Count such numbers, and their digits in all."""
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
    return count, digits
