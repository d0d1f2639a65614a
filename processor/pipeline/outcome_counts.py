"""Count outcomes of deliveries after the commit, for the metrics and for the caller of the run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from processor.model import Settlement
from processor.runtime import metrics


@dataclass(slots=True)
class OutcomeCounts:
    """The number of deliveries by outcome in one run."""

    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """The number of deliveries with an outcome."""
        return self.outcomes.total()


def count_outcomes(settlements: Sequence[Settlement]) -> Counter[str]:
    """Update the metrics with committed settlements, and return their number by outcome."""
    outcomes: Counter[str] = Counter()
    # Counted first, because updating a metric costs the same for one as for a batch.
    kinds = Counter((s.outcome, s.reason, s.discarded) for s in settlements)
    for (outcome, reason, discarded), count in kinds.items():
        metrics.deliveries.labels(outcome=outcome.value, reason=reason.value if reason else "").inc(count)
        if discarded and reason:
            metrics.discarded_by_rule.labels(reason=reason.value).inc(count)
        outcomes[outcome.value] += count
    return outcomes
