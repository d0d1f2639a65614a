"""Known noise: rejections that a rule of the registry discards at once.

A rule has a reason and one more condition at least. It looks at the body as it came, with whatever is wrapped
around the event.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec.structs import replace

from processor.json_pointer import follow, steps
from processor.model import Rejection, RejectionRule

Rules: TypeAlias = Mapping[str, tuple[RejectionRule, ...]]
"""Those in force, by their reason."""


def by_reason(rules: Sequence[RejectionRule]) -> Rules:
    """Arrange rules by the one thing that each of them asks for."""
    return {
        reason: tuple(rule for rule in rules if rule.reason == reason)
        for reason in {rule.reason for rule in rules}
    }


def discarded(rejection: Rejection, rules: Rules, read: Callable[[bytes], Any]) -> Rejection:
    """Give a rejection as the first rule that matches leaves it; as it is where none does.

    `read` gives the JSON value of a body, None where it has none. What is replayed is left to the person who
    replays it, and an event that is good but for its tenant to the queue that registers tenants: it is stored
    by a later replay, and no noise.
    """
    if rejection.reason not in rules or rejection.newcomer or rejection.delivery.rejection_id is not None:
        return rejection
    asked = [rule for rule in rules[rejection.reason] if _claims_fit(rule, rejection)]
    body = read(rejection.delivery.body) if any(rule.conditions for rule in asked) else None
    for rule in asked:
        if all(_text(follow(body, steps(at))) == value for at, value in rule.conditions.items()):
            # In front, since a rejection cuts long texts at their end.
            message = f"discarded at once by rule {rule.rule_id}: {rejection.detail.get('message')}"
            return replace(rejection, rule_id=rule.rule_id, detail={**rejection.detail, "message": message})
    return rejection


def _claims_fit(rule: RejectionRule, rejection: Rejection) -> bool:
    return (
        rule.queue in (None, rejection.delivery.queue)
        and rule.tenant_id in (None, rejection.claimed.tenant_id)
        and rule.event_type in (None, rejection.claimed.event_type)
    )


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Write a value as a condition has it: a text, a number or a boolean; None: it is nothing of these."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return str(value)
        case _:
            return None
