"""The demo's events, while the processor is killed with -9 twenty times; the audit must hold after each.

Nobody stops for the killing: events go on being sent, the next process begins on the same data at once.
"""

import random
import time

import pytest

from tests.rig import Rig

KILLS = 20
EVENTS_PER_KILL = 500


@pytest.mark.timeout(400)
def test_twenty_kills_lose_nothing_and_double_nothing(rig: Rig, pytestconfig: pytest.Config) -> None:
    chaos_seed = random.SystemRandom().randrange(1_000_000)
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    terminal.write_line(f"chaos seed {chaos_seed}; event seeds {chaos_seed} to {chaos_seed + KILLS - 1}")
    chance = random.Random(chaos_seed)

    for kill in range(KILLS):
        rig.start_processor()
        producers = rig.send(chaos_seed + kill, EVENTS_PER_KILL)
        rig.wait_until_busy()
        time.sleep(chance.uniform(0, 0.1))
        rig.kill_processor()
        depth = rig.source().depth()
        assert depth["in_flight"], "deliveries were held when it was killed"
        assert depth["visible"], "and messages were still queued"
        assert producers.wait(60) == 0
        report = rig.audit()
        assert report.holds, report.text()

    rig.start_processor()
    rig.wait_until_empty()
    report = rig.audit()
    assert report.holds, report.text()
    assert report.accepted is not None
    assert report.accepted["accepted"] == KILLS * EVENTS_PER_KILL
    assert report.accepted["missing"] == 0
    assert report.outcomes["duplicate"] > 0
    assert report.outcomes["rejection_open"] > 0
