"""The demo's events, while the processor is killed with -9 twenty times; the audit must hold after each.

Nobody stops for the killing: events go on being sent, the next process begins on the same data at once.
"""

import random

import pytest

from tests.rig import Rig

KILLS = 20
EVENTS_PER_KILL = 500


@pytest.mark.timeout(400)
def test_twenty_kills_lose_nothing_and_double_nothing(rig: Rig, pytestconfig: pytest.Config) -> None:
    chaos_seed = random.SystemRandom().randrange(1_000_000)
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    terminal.write_line(f"chaos seed {chaos_seed}; event seeds from {chaos_seed} on")
    chance = random.Random(chaos_seed)

    sent = 0
    for _ in range(KILLS):
        rig.start_processor()
        killed = False
        while not killed:
            producers = rig.send(chaos_seed + sent, EVENTS_PER_KILL)
            sent += 1
            rig.wait_until_busy()
            killed = rig.kill_processor_while_busy(chance)
            assert producers.wait(60) == 0
        report = rig.audit()
        assert report.holds, report.text()

    rig.start_processor()
    rig.wait_until_empty()
    report = rig.audit()
    assert report.holds, report.text()
    assert report.accepted is not None
    assert report.accepted["accepted"] == sent * EVENTS_PER_KILL
    assert report.accepted["missing"] == 0
    assert report.outcomes["duplicate"] > 0
    assert report.outcomes["rejection_open"] > 0
