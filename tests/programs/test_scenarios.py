"""The main scenarios of `make chaos` with a few faults each, and a soak in small."""

import pytest

from tests.chaos.run import Scenario, a_seed, run
from tests.chaos.scenarios import ALL
from tests.chaos.soak import soak


@pytest.mark.parametrize(
    "scenario", [each for each in ALL if each.rounds_short], ids=lambda scenario: scenario.title
)
def test_nothing_is_lost_or_doubled(scenario: Scenario) -> None:
    seed = a_seed()

    result = run(scenario, seed, short=True)

    print(f"python -m tests.chaos chaos '{scenario.title}' --short --seed {seed}")  # noqa: T201 - shown if it fails
    assert result.holds, result.trouble
    assert result.faults


def test_a_small_soak_holds() -> None:
    soaked = soak(messages=3000, kills_min=6, pause_s=0.3, seed=a_seed())

    assert soaked.holds, soaked.text()
    assert soaked.redelivered, "a kill met work"
