"""Several rounds, all contestants in turn in each, so that a noisy minute hurts everybody alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.load.contestants import Contestant
from tests.load.ground import Ground
from tests.load.rounds import Figures, drain

MESSAGES_MIN = 100


@dataclass
class Race:
    """What each contestant has shown, round by round; and who could not take part, with the reason."""

    rounds: list[dict[str, Figures]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def race(
    ground: Ground,
    contestants: Sequence[Contestant],
    rounds: int,
    messages: int,
    say: Callable[[str], None] = print,
) -> Race:
    """Let everybody drain once a round, each round beginning with another one."""
    here = [contestant for contestant in contestants if not contestant.missing]
    result = Race(missing={c.name: c.missing for c in contestants if c.missing})
    for number in range(rounds):
        shown: dict[str, Figures] = {}
        first = number % len(here) if here else 0
        for contestant in [*here[first:], *here[:first]]:
            share = max(MESSAGES_MIN, int(messages * contestant.share))
            figures = shown[contestant.name] = drain(ground, contestant, share)
            say(
                f"round {number + 1}/{rounds}  {contestant.name:20} {figures.rate_per_s:8,.0f} messages/s  "
                f"{figures.client_cpu_s:6.3f} CPU-s per 1,000"
            )
        result.rounds.append(shown)
    return result
