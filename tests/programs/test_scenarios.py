"""The main scenarios of `make chaos` with a few faults each, and a soak in small."""

import pytest

from tests.chaos.run import Scenario, a_seed, run
from tests.chaos.scenarios import ALL
from tests.chaos.soak import soak

ALWAYS = {
    "process: kill -9 in a loop, two of four",
    "postgresql: the reply of COMMIT lost",
    "SQS: replies lost",
}
"""One for the processes, one for the database, one for the queue."""

_LONG = pytest.mark.long("test_nothing_is_lost_or_doubled")


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=each.title, marks=() if each.title in ALWAYS else _LONG)
        for each in ALL
        if each.rounds_short
    ],
)
def test_nothing_is_lost_or_doubled(scenario: Scenario) -> None:
    seed = a_seed()

    result = run(scenario, seed, short=True)

    print(f"python -m tests.chaos chaos '{scenario.title}' --short --seed {seed}")  # noqa: T201 - shown if it fails
    assert result.holds, result.trouble
    assert result.faults


@_LONG
def test_a_small_soak_holds() -> None:
    soaked = soak(messages=3000, kills_min=6, pause_s=0.3, seed=a_seed())

    assert soaked.holds, soaked.text()
    assert soaked.redelivered, "a kill met work"
