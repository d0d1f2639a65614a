"""Known noise: rejections that a rule of the registry discards at once.

A rule has a reason and one more condition at least. It looks at the body as it came, with whatever is wrapped
around the event. A condition's value is a JSON value where it is one, else a text: 1, 1.0 and 1e0 are one
number, and "1" is a text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec.structs import replace

from processor.model import Rejection, RejectionRule
from processor.wire.json_pointer import follow, steps

Rules: TypeAlias = Mapping[str, tuple[RejectionRule, ...]]
"""Those in force, by their reason."""


def by_reason(rules: Sequence[RejectionRule]) -> Rules:
    """Arrange rules by the one thing that each of them asks for."""
    return {
        reason: tuple(rule for rule in rules if rule.reason == reason)
        for reason in {rule.reason for rule in rules}
    }


def discarded_by_rule(rejection: Rejection, rules: Rules, read: Callable[[bytes], Any]) -> Rejection:
    """Give a rejection as the first rule that matches leaves it; as it is where none does.

    `read` gives the JSON value of a body, None where it has none. What is replayed is left to the person who
    replays it, and an event that is good but for its tenant to the queue that registers tenants: it is stored
    by a later replay, and no noise.
    """
    if rejection.reason not in rules or rejection.new_tenant or rejection.delivery.rejection_id is not None:
        return rejection
    asked = [rule for rule in rules[rejection.reason] if _claims_fit(rule, rejection)]
    body = read(rejection.delivery.body) if any(rule.conditions for rule in asked) else None
    for rule in asked:
        if all(_equal(follow(body, steps(at)), expected(text)) for at, text in rule.conditions.items()):
            # In front, since a rejection cuts long texts at their end.
            message = (
                f"discarded at once by rule {rule.rule_id} (while it is kept, replay it by its id): "
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
    """Read the value of a condition; None: it is JSON, but no text, number or boolean; matches nothing."""
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
