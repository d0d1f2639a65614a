"""A rolling change of settings: one process is paused in a batch, and others take the batch over.

    one message ─┬▶ a process with the old settings, paused before its COMMIT ─┬▶ one outcome, the first
                 └▶ a process with the new settings ───────────────────────────┘

The verdicts differ, so the second process must find the first outcome.
"""

import signal
from collections.abc import Callable
from dataclasses import replace

from processor.wire.manifest import ManifestWriter
from producers.publishers.publish import AcceptedMessage, PublishRun
from tests.chaos.field import DATABASE, SETTINGS, Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.scenarios.brokers import from_kafka
from tests.chaos.scenarios.changes import CHECKOUT, command
from tests.chaos.traffic.extra_events import an_extra_event

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


_IN_A_SAVE = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'paused' AND backend_xid IS NOT NULL"


def two_settings(field: Field) -> None:
    """Let one process have a login of its own, by which its saves are seen, and the other a lower limit."""
    with field.admin() as admin:
        admin.execute("CREATE ROLE paused LOGIN IN ROLE processor_writer")
    url = f"postgresql://paused@127.0.0.1:{field.database.port}/{DATABASE}"
    field.fleet.own = {0: {"DATABASE_URL": url}, 1: {"BODY_BYTES_MAX": str(_LIMIT_BYTES)}}


def _pause_one_in_a_save(field: Field, for_s: float) -> None:
    """Freeze, between two statements of a save, the process that stores what the other one rejects."""
    for number in range(field.rounds):
        # Slow, so that there is a middle.
        field.database.delay_s = 0.2
        _send_large_ones(field, number)
        # The save of the moment began before they came.
        field.pause(0.5, 1.5)
        with field.fault():
            _freeze_in_a_save(field)
            try:
                field.database.delay_s = 0.0
                field.pause(for_s, for_s + 1)
            finally:
                field.fleet.signal(0, signal.SIGCONT)
        field.wait_until_recovered()
    _one_outcome_each(field)


def _send_large_ones(field: Field, number: int) -> None:
    manifest = field.folder / f"large-{number}.jsonl"
    field.load.more_manifests.append(manifest)
    events = [
        an_extra_event(field.chance, f"large-{number}-{each}", padding_bytes=_PADDING_BYTES)
        for each in range(_PER_ROUND)
    ]
    with ManifestWriter(manifest) as writer:
        for receipt in PublishRun(field.load.publisher, writer).publish(events):
            assert isinstance(receipt, AcceptedMessage), receipt
            field.load.sent.note(receipt)


def _freeze_in_a_save(field: Field) -> None:
    with field.admin() as admin:
        field.wait_until(
            lambda: admin.execute(_IN_A_SAVE).fetchone() != (0,), "it is in the middle of a save"
        )
    field.fleet.signal(0, signal.SIGSTOP)


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
    _pause_one_in_a_save(field, float(SETTINGS["VISIBILITY_TIMEOUT_S"]) + 2)


def pause_on_kafka(field: Field) -> None:
    """Freeze it for longer than the session: its partitions move, and it still saves when it wakes."""
    _pause_one_in_a_save(field, _KAFKA_SESSION_S + 4)


def on_kafka(field: Field) -> None:
    """Let both read a topic."""
    from_kafka(field)
    two_settings(field)


def _scenario(name: str, work: Callable[[Field], None], rounds: int) -> Scenario:
    # A save may take longer than the pause, or the server would end it, and nothing would be shown.
    settings = {"DATABASE_TIMEOUT_S": "30", "BATCH_SIZE_MAX": "50"}
    # And hardly any load beside: two saves that raise one total wait for each other, and nothing is seen.
    return Scenario(name, "rolling change", work, rounds, rate=2, settings=settings, prepare=two_settings)


SCENARIOS = [
    _scenario("paused in a save, other limits", pause_on_sqs, 5),
    replace(_scenario("a Kafka partition moves, other limits", pause_on_kafka, 3), prepare=on_kafka),
]
