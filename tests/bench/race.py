"""Several rounds with all contestants in turn, so that noise of the machine affects all alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from statistics import median

from tests.bench.contestants import OURS, Contestant
from tests.bench.figures.rounds import Figures, drain
from tests.bench.ground import Ground

MESSAGES_MIN = 100


@dataclass(frozen=True)
class Entry:
    """Who runs once a round: `run` takes the ground and how many messages."""

    name: str
    run: Callable[[Ground, int], Figures]
    share: float = 1.0
    missing: str | None = None


@dataclass
class Race:
    """What each entry has shown, round by round; and who could not take part, with the reason."""

    rounds: list[dict[str, Figures]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Everybody who has run, in order of entering."""
        return list(dict.fromkeys(name for shown in self.rounds for name in shown))

    def runs(self, name: str) -> list[Figures]:
        """What one has shown, in every round."""
        return [shown[name] for shown in self.rounds if name in shown]

    def of_ours(self, name: str) -> float | None:
        """Give the rate as a part of ours: the median of the ratios within each round."""
        return self.ratio(name, OURS)

    def ratio(self, name: str, base: str) -> float | None:
        """Give the rate of one as a part of another's: the median of the ratios within each round."""
        ratios = [
            shown[name].rate_per_s / shown[base].rate_per_s
            for shown in self.rounds
            if base in shown and name in shown
        ]
        return median(ratios) if ratios else None

    def summary(self) -> dict[str, dict[str, float]]:
        """Give the medians of everybody's figures, the least and the greatest rate, and the ratio to ours."""
        found = {}
        for name in self.names:
            runs, ratio = self.runs(name), self.of_ours(name)
            fields = {
                field.name: [value for run in runs if (value := getattr(run, field.name)) is not None]
                for field in fields_of(Figures)
            }
            rates = fields["rate_per_s"]
            found[name] = {name: median(values) for name, values in fields.items() if values} | {
                "rate_per_s_min": min(rates),
                "rate_per_s_max": max(rates),
                **({} if ratio is None else {"times_ours": ratio}),
            }
        return found


def entry(contestant: Contestant) -> Entry:
    """Let a contestant enter a race."""

    def run(ground: Ground, messages: int) -> Figures:
        return drain(ground, contestant, messages)

    return Entry(contestant.name, run, contestant.share, contestant.missing)


def race(
    ground: Ground,
    entries: Sequence[Entry],
    rounds: int,
    messages: int,
    say: Callable[[str], None] = print,
) -> Race:
    """Let everybody run once a round, each round beginning with another one."""
    here = [one for one in entries if not one.missing]
    result = Race(missing={one.name: one.missing for one in entries if one.missing})
    for number in range(rounds):
        shown: dict[str, Figures] = {}
        first = number % len(here) if here else 0
        for one in [*here[first:], *here[:first]]:
            figures = one.run(ground, max(MESSAGES_MIN, int(messages * one.share)))
            shown[one.name] = figures
            say(
                f"round {number + 1}/{rounds}  {one.name:24} {figures.rate_per_s:8,.0f} messages/s  "
                f"{figures.client_cpu_s:6.3f} CPU-s per 1,000"
            )
        # In the order of entering, whoever began.
        result.rounds.append({one.name: shown[one.name] for one in here})
    return result
