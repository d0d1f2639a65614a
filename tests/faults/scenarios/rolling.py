"""What happens while settings change from process to process: one is paused in a batch, others take it over.

    one message ─┬▶ a process with the old settings, paused before its COMMIT ─┬▶ one outcome, the first
                 └▶ a process with the new settings ───────────────────────────┘

The verdicts differ, so the second must see that there is a first.
"""

import signal
from collections.abc import Callable
from dataclasses import replace

from tests.faults.extra_events import an_extra_event
from tests.faults.field import SETTINGS, Field, ScenarioFailed
from tests.faults.run import Scenario
from tests.faults.scenarios.brokers import from_kafka
from tests.faults.scenarios.changes import CHECKOUT, command

_LIMIT_BYTES = 2000
_PADDING_BYTES = 4000
"""What only a process with the higher BODY_BYTES_MAX stores."""
_KAFKA_SESSION_S = 6.0
_PER_ROUND = 30

_TWICE = """
SELECT delivery_id FROM (
  SELECT queue, delivery_id FROM message
  UNION ALL SELECT queue, delivery_id FROM duplicate
  UNION ALL SELECT queue, delivery_id FROM rejection WHERE status <> 'replayed'
) AS places GROUP BY queue, delivery_id HAVING count(*) > 1
"""


def _pause_one_in_a_batch(field: Field, for_s: float) -> None:
    """Freeze, in the middle of a batch, the process that would store what the other one rejects."""
    paused = 0
    for number in range(field.rounds):
        for each in range(_PER_ROUND):
            field.load.also(
                an_extra_event(field.chance, f"large-{number}-{each}", padding_bytes=_PADDING_BYTES)
            )
        # Slow, so that there is a middle.
        field.database.delay_s = 0.2
        field.wait_until(lambda: field.held(0) > 0, "the process holds something")
        with field.fault():
            paused += field.held(0) > 0
            field.fleet.signal(0, signal.SIGSTOP)
            try:
                field.pause(for_s, for_s + 2)
                field.database.delay_s = 0.0
                field.pause(0.5, 1)
            finally:
                field.fleet.signal(0, signal.SIGCONT)
        field.wait_until_recovered()
    if not paused:
        raise ScenarioFailed("no process was paused while it held anything: nothing was shown")
    _one_outcome_each(field)


def _one_outcome_each(field: Field) -> None:
    """Demand that nothing is in two tables, and put right what the lower limit has rejected."""
    with field.admin() as admin:
        twice = admin.execute(_TWICE).fetchall()
        rejected = admin.execute("SELECT count(*) FROM rejection WHERE reason = 'too_large'").fetchone()
    if twice:
        raise ScenarioFailed(f"{len(twice)} deliveries are in two tables, such as {twice[0][0]}")
    if rejected == (0,):
        raise ScenarioFailed("nothing was rejected as too large: nothing was shown")
    field.fleet.own = {}
    for member in field.fleet.members:
        field.fleet.kill(member.place)
    command(field, CHECKOUT, "rejection", "replay", "--reason", "too_large")


def pause_on_sqs(field: Field) -> None:
    """Freeze it for longer than the visibility timeout."""
    _pause_one_in_a_batch(field, float(SETTINGS["VISIBILITY_TIMEOUT_S"]) + 0.5)


def pause_on_kafka(field: Field) -> None:
    """Freeze it for longer than the session: its partitions move, and it still saves when it wakes."""
    _pause_one_in_a_batch(field, _KAFKA_SESSION_S + 4)


def _scenario(name: str, work: Callable[[Field], None], rounds: int) -> Scenario:
    return Scenario(
        name, "rolling change", work, rounds, rate=60, own_settings={1: {"BODY_BYTES_MAX": str(_LIMIT_BYTES)}}
    )


SCENARIOS = [
    _scenario("a paused process, other limits", pause_on_sqs, 5),
    replace(_scenario("a Kafka partition moves, other limits", pause_on_kafka, 3), prepare=from_kafka),
]
