"""A message whose processing never ends: its workers are replaced, and the message is put aside."""

import time

from processor.settings import Settings
from processor.sources.quarantine import RejectionSelection
from processor.wiring import commands
from tests.chaos.field import DATABASE, SETTINGS, Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.traffic.extra_events import an_extra_event
from tests.chaos.victims.hanging import POISON, WAYS

_JUDGE_TIMEOUT_S = 1.0
_STOP_S_MAX = float(SETTINGS["STOP_TIMEOUT_S"]) + 4
"""What a stop may take: STOP_TIMEOUT_S, and the release of what is held then."""


def hang_readers(field: Field) -> None:
    """Send messages that their readers hang at, each in another way; stop a process meanwhile, now and then.

    Once nobody hangs any more they come into the books by replay.
    """
    ways = list(WAYS)
    for number in range(field.rounds):
        how = ways[number % len(ways)]
        field.fleet.command = lambda _, how=how: ["tests.chaos.victims.hanging", how, "run"]  # type: ignore[misc]
        _restart_all(field)
        field.wait_until(lambda: field.fleet.ready(0)[0] == 200, "the process is ready")
        with field.fault():
            field.load.also(an_extra_event(field.chance, f"{POISON.decode()}-{number}"))
            if number % 2:
                field.pause(_JUDGE_TIMEOUT_S / 2, 2 * _JUDGE_TIMEOUT_S)
                _end_in_time(field)
            field.wait_until(
                lambda number=number: _put_aside(field) > number,  # type: ignore[misc]
                f"a message at which readers hang ({how}) is put aside",
                wait_s=90,
            )
    if (found := _put_aside(field)) != field.rounds:
        raise ScenarioFailed(f"{found} were put aside; expected {field.rounds}, no neighbour among them")
    field.fleet.command = lambda _: ["processor", "run"]
    _restart_all(field)
    settings = Settings.load(_env_file=None, database_url=field.postgres.url(DATABASE))
    commands.replay(settings, RejectionSelection(reason="unstorable"), dry_run=False, forced=False)


def _restart_all(field: Field) -> None:
    for place in range(len(field.fleet.members)):
        field.fleet.kill(place)


def _end_in_time(field: Field) -> None:
    began_at = time.monotonic()
    code = field.fleet.terminate(0)
    took_s = time.monotonic() - began_at
    # 4 where a reader hung at that moment: then work is left.
    if code not in (0, 4) or took_s > _STOP_S_MAX:
        raise ScenarioFailed(
            f"a stop took {took_s:.1f} s and ended with {code}; expected 0 or 4 in {_STOP_S_MAX} s"
        )


def _put_aside(field: Field) -> int:
    with field.admin() as connection:
        row = connection.execute("SELECT count(*) FROM rejection WHERE reason = 'unstorable'").fetchone()
    return 0 if row is None else int(row[0])


SCENARIOS = [
    Scenario(
        "a validator that never returns",
        "process",
        hang_readers,
        rounds=6,
        # Each hang costs all that a worker holds a receive, and what has had three is saved alone.
        rate=60,
        settings={"JUDGE_TIMEOUT_S": str(_JUDGE_TIMEOUT_S), "BUFFER_SIZE_MAX": "60"},
    ),
]
