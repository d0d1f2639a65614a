"""The required behaviour in an outage of the database, whatever its cause.

Every process answers 503 with the reason, receives no more messages, keeps the visibility of those in flight,
and recovers by itself.
"""

from collections.abc import Callable

from tests.chaos.field import SETTINGS, Field, ScenarioFailed
from tests.chaos.run import Scenario

_POLL_S = float(SETTINGS["RECEIVE_WAIT_S"]) + 0.5
"""When every poll has ended that was under way as the outage was noticed."""

_RECEIVES_MAX = 3
"""Of one message, where no process ends: one, and what a machine out of breath lets slip."""

_RECEIVES_BEFORE_DLQ = 10
"""The fewest that docs/howto/sqs-on-aws.md allows for."""


def all_say(field: Field, *words: str) -> bool:
    """Say whether every process is unready, each for one of these causes."""
    answers = [field.fleet.ready(member.place) for member in field.fleet.members]
    return all(status == 503 and any(word in body for word in words) for status, body in answers)


def all_ready(field: Field) -> bool:
    return all(field.fleet.ready(member.place)[0] == 200 for member in field.fleet.members)


def receiving_stops(field: Field, *words: str, for_s: float, within_s: float = 15) -> None:
    """Demand that every process says 503 with one of these words, and receives nothing from then on."""
    field.wait_until(
        lambda: all_say(field, *words), f"/readyz of all says 503 and why ({words})", wait_s=within_s
    )
    field.pause(_POLL_S, _POLL_S)
    before = field.queue.minutes.handed_over.total()
    field.pause(for_s, for_s)
    more = field.queue.minutes.handed_over.total() - before
    if more:
        raise ScenarioFailed(f"{more} messages were received while the database was away")
    if not all_say(field, *words):
        raise ScenarioFailed(f"/readyz does not say {words} any more, and the outage is not over")


def works_again(field: Field) -> None:
    """Demand that every process is ready, and that one message was not received again and again."""
    field.wait_until(lambda: all_ready(field), "/readyz of all says 200 again", wait_s=20)
    delivery_id, receives = max(field.queue.minutes.handed_over.items(), key=lambda pair: pair[1])
    if receives > _RECEIVES_MAX:
        raise ScenarioFailed(f"{delivery_id} was received {receives} times; the outage was to burn none")


def outage(
    field: Field, begin: Callable[[], None], end: Callable[[], None], *words: str, for_s: float
) -> None:
    """Make one outage, see that it is noticed and that nothing is received, and end it."""
    with field.fault():
        try:
            begin()
            receiving_stops(field, *words, for_s=for_s)
        finally:
            end()
    works_again(field)


def a_scenario(
    name: str, work: Callable[[Field], None], rounds: int, rounds_short: int = 0, **more: object
) -> Scenario:
    return Scenario(
        name,
        "postgresql",
        work,
        rounds=rounds,
        rounds_short=rounds_short,
        max_receive_count=_RECEIVES_BEFORE_DLQ,
        **more,  # type: ignore[arg-type]
    )
