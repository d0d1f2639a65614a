"""Runs one scenario: load, faults, recovery, a timeout for the queue to drain, and the oracle."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from processor.devstack.servers.children import DevstackError
from tests.chaos.field import Field, ScenarioFailed, open_field
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import Judgement, judge

DRAIN_S_MAX = 90.0
_LEAD_S = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to whom, and what it defends.

    `work` injects `rounds` faults (`rounds_short` inside `make test`, where 0 leaves it out) while the load
    runs. `own_settings` are those of one process, by its place. `exits` are the exit codes that processes may
    end with although nobody killed them. `needs` says what this machine lacks for it, '' if nothing: then it
    is left out, and the table says why.
    """

    name: str
    family: str
    work: Callable[[Field], None]
    rounds: int
    rounds_short: int = 0
    processes: int = 2
    rate: int = 150
    settings: dict[str, str] = field(default_factory=dict)
    own_settings: dict[int, dict[str, str]] = field(default_factory=dict)
    exits: frozenset[int] = frozenset()
    max_receive_count: int = 100
    dead_letters: bool = False
    """Whether it is meant to bring some; elsewhere each is a fault."""
    needs: Callable[[], str] = str
    prepare: Callable[[Field], None] = lambda _: None
    """What has to be there before the load begins."""

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.family}: {self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the table. Times are seconds; `trouble` is empty where all is well.

    `left_out` says why it was not run at all, in which case nothing was shown.
    """

    scenario: Scenario
    seed: int
    faults: int
    messages: int
    redeliveries: int
    recovery_p50_s: float
    recovery_max_s: float
    drained_s: float
    judgement: Judgement | None
    trouble: str
    left_out: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.trouble and self.judgement is not None and self.judgement.holds


def run(scenario: Scenario, seed: int, *, short: bool = False) -> Result:
    """Run a scenario; what goes wrong is in the result."""
    if lacking := scenario.needs():
        return Result(scenario, seed, 0, 0, 0, 0, 0, 0, None, "", left_out=lacking)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        try:
            with open_field(
                Path(folder),
                seed=seed,
                rounds=scenario.rounds_short if short else scenario.rounds,
                processes=scenario.processes,
                rate=scenario.rate,
                settings=scenario.settings,
                max_receive_count=scenario.max_receive_count,
            ) as ground:
                return _run_in(ground, scenario, seed)
        except DevstackError as error:
            return Result(scenario, seed, 0, 0, 0, 0, 0, 0, None, str(error))


def _run_in(ground: Field, scenario: Scenario, seed: int) -> Result:
    trouble, judgement, drained_s = "", None, 0.0
    ground.fleet.own = scenario.own_settings
    scenario.prepare(ground)
    ground.fleet.start()
    ground.load.start()
    ground.recovery.start()
    try:
        ground.wait_until(lambda: ground.row_count() > 0, "the first row is there")
        ground.pause(_LEAD_S, _LEAD_S)
        scenario.work(ground)
        ground.heal()
        ground.load.stop()
        drained_s = _drain(ground)
        with ground.admin() as connection:
            judgement = judge(
                connection,
                ground.depths(),
                ground.load,
                ground.queue.minutes,
                dead_letters=scenario.dead_letters,
                sink=ground.sink,
            )
        trouble = _troubles(ground, scenario, judgement)
    except ScenarioFailed as error:
        ground.heal()
        trouble = str(error)
    if trouble:
        trouble += f"\n{_log_tail(ground)}"
    times = sorted(ground.recovery.times_s) or [0.0]
    return Result(
        scenario,
        seed,
        ground.faults,
        0 if judgement is None else judgement.messages,
        ground.queue.minutes.redeliveries,
        statistics.median(times),
        times[-1],
        drained_s,
        judgement,
        trouble,
    )


def _drain(ground: Field) -> float:
    """Wait until the queue is empty and every fault was recovered from; gives how long that took."""
    began_at, source = time.monotonic(), ground.depths()
    ground.wait_until(lambda: not sum(source.depth().values()), "the queue is empty", wait_s=DRAIN_S_MAX)
    drained_s = time.monotonic() - began_at
    ground.wait_until_recovered()
    return drained_s


def _troubles(ground: Field, scenario: Scenario, judgement: Judgement) -> str:
    troubles = list(ground.complaints)
    if ground.load.failure is not None:
        troubles.append(f"the load ended early: {ground.load.failure}")
    fallen = [fall for fleet in _fleets(ground) for fall in fleet.falls]
    falls = [(place, code) for place, code in fallen if code not in scenario.exits]
    if falls:
        troubles.append(f"processes ended by themselves (place, exit code): {falls[:5]}")
    if not judgement.holds:
        found = {name: count for name, count in judgement.faults_found.items() if count}
        troubles.append(f"the oracle found {found}\n{judgement.text}")
    if not ground.faults:
        troubles.append("no fault was injected")
    if not judgement.messages:
        troubles.append("no message was accepted")
    return "\n".join(troubles)


def _fleets(ground: Field) -> list[Fleet]:
    beside = (ground.dispatchers, ground.gateways)
    return [ground.fleet, *(fleet for fleet in beside if fleet is not None)]


def _log_tail(ground: Field) -> str:
    return "\n".join(
        line for fleet in _fleets(ground) for line in fleet.log.read_text(errors="replace").splitlines()[-15:]
    )


def a_seed() -> int:
    """Draw a seed that a person can type."""
    return random.SystemRandom().randrange(1_000_000)
