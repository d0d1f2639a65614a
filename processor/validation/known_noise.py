"""Discards known noise: rejections that match a rule of the registry.

A rule has a reason and at least one more condition. Conditions apply to the body as received, with any
wrapper around the event. A condition's value is parsed as JSON if possible, else taken as a string: 1, 1.0
and 1e0 are one number, and "1" is a string.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec.structs import replace

from processor.model import Rejection, RejectionRule
from processor.wire.json_pointer import follow, steps

Rules: TypeAlias = Mapping[str, tuple[RejectionRule, ...]]
"""The active rules, by reason."""


def by_reason(rules: Sequence[RejectionRule]) -> Rules:
    """Group rules by their reason."""
    return {
        reason: tuple(rule for rule in rules if rule.reason == reason)
        for reason in {rule.reason for rule in rules}
    }


def discarded_by_rule(rejection: Rejection, rules: Rules, read: Callable[[bytes], Any]) -> Rejection:
    """Return a rejection after the first matching rule; unchanged if none matches.

    `read` parses a body, and returns None if it is invalid. Two kinds are never discarded: replayed
    rejections, which a person handles, and events that are valid but for a tenant that a queue may register
    later.
    """
    if rejection.reason not in rules or rejection.new_tenant or rejection.delivery.rejection_id is not None:
        return rejection
    asked = [rule for rule in rules[rejection.reason] if _claims_fit(rule, rejection)]
    body = read(rejection.delivery.body) if any(rule.conditions for rule in asked) else None
    for rule in asked:
        if all(_equal(follow(body, steps(at)), expected(text)) for at, text in rule.conditions.items()):
            # First, because a rejection cuts long messages at the end.
            message = (
                f"discarded by rule {rule.rule_id} (replay it by its id while it is kept): "
                f"{rejection.detail.get('message')}"
            )
            return replace(rejection, rule_id=rule.rule_id, detail={**rejection.detail, "message": message})
    return rejection


def _claims_fit(rule: RejectionRule, rejection: Rejection) -> bool:
    return (
        rule.queue in (None, rejection.delivery.queue)
        and rule.tenant_id in (None, rejection.claimed.tenant_id)
        and rule.event_type in (None, rejection.claimed.event_type)
    )


def expected(text: str) -> str | bool | Decimal | None:
    """Parse the value of a condition; None: JSON, but not a scalar, which never matches."""
    try:
        value = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_json)
    except (ValueError, ArithmeticError, RecursionError):
        return text
    return value if isinstance(value, str | bool | Decimal) else None


def _no_json(name: str) -> Any:  # noqa: ANN401 - it gives nothing
    raise ValueError(name)


def _equal(value: Any, wanted: str | bool | Decimal | None) -> bool:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        value = Decimal(str(value))
    if isinstance(wanted, Decimal):
        return isinstance(value, int | Decimal) and not isinstance(value, bool) and value == wanted
    return wanted is not None and type(value) is type(wanted) and bool(value == wanted)
