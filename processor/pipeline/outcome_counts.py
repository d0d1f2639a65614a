"""What became of deliveries, counted after their commit: for the metrics, and for whoever started the run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from processor.model import Settlement
from processor.runtime import metrics


@dataclass(slots=True)
class OutcomeCounts:
    """How many deliveries came to which outcome in one run."""

    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All deliveries that got an outcome."""
        return self.outcomes.total()


def count_outcomes(settlements: Sequence[Settlement]) -> Counter[str]:
    """Tell the metrics what became of deliveries, after their commit; gives how many had which outcome."""
    outcomes: Counter[str] = Counter()
    # Counted first: telling the metrics costs as much for one as for a batch.
    kinds = Counter((s.outcome, s.reason, s.discarded) for s in settlements)
    for (outcome, reason, discarded), count in kinds.items():
        metrics.deliveries.labels(outcome=outcome.value, reason=reason.value if reason else "").inc(count)
        if discarded and reason:
            metrics.discarded_by_rule.labels(reason=reason.value).inc(count)
        outcomes[outcome.value] += count
    return outcomes
