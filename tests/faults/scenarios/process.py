"""What happens to processes: kills, stops, freezes, limits, and a start before the servers are there."""

from tests.faults.field import Field
from tests.faults.run import Scenario


def kill_two_of_four(field: Field) -> None:
    """Kill -9 in a loop, two of four processes, so that the others meet what the dead have left behind."""
    for _ in range(field.rounds):
        field.pause(0.2, 1.2)
        with field.fault():
            field.fleet.kill(field.chance.randrange(2))


SCENARIOS = [
    Scenario("kill -9, two of four", "process", kill_two_of_four, rounds=20, rounds_short=5, processes=4),
]
