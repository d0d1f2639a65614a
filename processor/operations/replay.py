"""The replay of rejections through the pipeline, and its dry run.

take back what a rule discarded ─▶ batch by batch: receive ─▶ validate ─▶ save ─▶ outcomes
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from processor.model import Delivery, Rejection, Settlement, Verdict
from processor.sources import Source


class Validator(Protocol):
    """A validator of deliveries."""

    def validate(self, delivery: Delivery) -> Verdict: ...  # noqa: D102


def put_through(take_batch: Callable[[], Sequence[Settlement]]) -> Counter[str]:
    """Run batches through the pipeline until one is empty; counts outcomes, or reasons if rejected."""
    outcomes: Counter[str] = Counter()
    while settlements := take_batch():
        outcomes.update((settlement.reason or settlement.outcome).value for settlement in settlements)
    return outcomes


def foresee(source: Source, validator: Validator) -> Counter[str]:
    """Count the outcomes of `put_through` without saving.

    An event that would be stored may still be a duplicate or an id_conflict.
    """
    verdicts: Counter[str] = Counter()
    while deliveries := source.receive(source.call_size, 0):
        for verdict in map(validator.validate, deliveries):
            # The save registers the tenant of a new_tenant, within the limit of its queue.
            if isinstance(verdict, Rejection) and not verdict.new_tenant:
                verdicts[verdict.reason.value] += 1
            else:
                verdicts["stored"] += 1
    return verdicts
