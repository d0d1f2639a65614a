"""Faults of SQS and of its network; the processes wait, report it, and recover by themselves."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests.chaos.field import DATABASE, SETTINGS, Field, ScenarioFailed
from tests.chaos.run import Scenario
from tests.chaos.sqs_outages import SAID_S_MAX, all_ready, all_say, blinks, demand_ready, outage, while_sqs
from tests.chaos.traffic.extra_events import an_extra_event
from tests.chaos.traffic.interceptors import (
    BATCHES,
    EXTEND,
    RECEIVE,
    Copies,
    Late,
    alter,
    be_silent,
    delay,
    fail_some,
    lose_reply,
    lose_request,
    refuse,
    truncate,
)
from tests.chaos.victims.poisoned import POISON

VISIBILITY_S = float(SETTINGS["VISIBILITY_TIMEOUT_S"])
_WORK_LEFT = 4
_READ_TIMEOUT_S = float(SETTINGS["RECEIVE_WAIT_S"]) + 15


def fail_parts_of_batches(field: Field) -> None:
    """Answer 200 to a delete or an extension of which some entries failed, through our fault or not."""
    for _ in range(field.rounds):
        # Slow, so that there is something to extend.
        field.database.delay_s = 0.2
        with while_sqs(field, fail_some(field.chance, 0.4), share=0.7, only=BATCHES) as met:
            field.pause(4, 6)
            field.wait_until(lambda met=met: all(met[each] for each in BATCHES), "both kinds were met")  # type: ignore[misc]
            demand_ready(field)
        field.database.heal()
        field.wait_until_recovered()


def lose_replies(field: Field) -> None:
    """Do what is asked and hang up before the answer: all of the time, then half of it."""
    for _ in range(field.rounds):
        outage(field, lose_reply, ["ConnectionClosed"])
        blinks(field, lose_reply)


def lose_requests(field: Field) -> None:
    """Hang up before the queue hears of it: all of the time, then half of it."""
    for _ in range(field.rounds):
        outage(field, lose_request, ["ConnectionClosed"])
        blinks(field, lose_request)


def hand_over_thrice(field: Field) -> None:
    """Hand every message to three receivers at once, while the first is at work on it."""
    for _ in range(field.rounds):
        copies = Copies(3)
        with while_sqs(field, copies, only=[RECEIVE]):
            field.wait_until(lambda copies=copies: copies.copied >= 200, "200 copies were handed over")  # type: ignore[misc]
        field.wait_until_recovered()


def redeliver_late(field: Field) -> None:
    """Hand over again what was deleted some seconds ago, under a new receipt."""
    for number in range(field.rounds):
        late = Late(field.chance, after_s=field.chance.uniform(0.5, 4), strict=number % 2 == 0)
        with while_sqs(field, late):
            field.wait_until(lambda late=late: late.handed_over >= 100, "100 came again")  # type: ignore[misc]
            rows = field.row_count()
            field.wait_until(
                lambda late=late: not late.waiting_for_delete,  # type: ignore[misc]
                "all that came late was deleted once more",
            )
        if field.row_count() < rows:
            raise ScenarioFailed("rows went away")


def work_beyond_visibility(field: Field) -> None:
    """Lose every heartbeat while the database is slow, so that others get what is being worked on."""
    for _ in range(field.rounds):
        field.database.delay_s = 0.5
        before = field.queue.minutes.redeliveries
        with while_sqs(field, lose_request, only=[EXTEND]):
            field.pause(VISIBILITY_S + 1, VISIBILITY_S + 2)
            field.wait_until(
                lambda before=before: field.queue.minutes.redeliveries > before,  # type: ignore[misc]
                "something was handed over while somebody worked on it",
            )
        field.database.heal()
        field.wait_until_recovered()


def work_with_heartbeats(field: Field) -> None:
    """Let the database take longer than the visibility timeout: heartbeats keep what is worked on."""
    for _ in range(field.rounds):
        before = field.queue.minutes.redeliveries
        with while_sqs(field, lambda call, forward: forward(call.fields), only=[EXTEND]):
            field.database.delay_s = 0.4
            field.pause(VISIBILITY_S + 2, VISIBILITY_S + 4)
            field.database.heal()
        field.wait_until_recovered()
        if field.queue.minutes.redeliveries > before:
            raise ScenarioFailed(
                f"{field.queue.minutes.redeliveries - before} were handed over twice despite the heartbeats"
            )


def refuse_calls(field: Field) -> None:
    """Throttle, fail inside, or be unavailable: all of the time, then half of it, and slow besides."""
    for number in range(field.rounds):
        code, status = (
            ("RequestThrottled", 403),
            ("ThrottlingException", 400),
            ("ServiceUnavailable", 503),
            ("InternalError", 500),
        )[number % 4]
        outage(field, refuse(code, status), [code])
        blinks(field, refuse(code, status))
        blinks(field, delay(field.chance, 0.2, 2))


def expire_credentials(field: Field) -> None:
    """Refuse the key for a while, as when it has expired and another is on its way."""
    for number in range(field.rounds):
        code = ("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch")[number % 3]
        outage(field, refuse(code, 403), [code])


def fall_silent(field: Field) -> None:
    """Take calls and answer none, for longer than an answer is waited for."""
    for _ in range(field.rounds):
        over = threading.Event()
        try:
            with while_sqs(field, be_silent(over)):
                # Boto3's client waits twice.
                all_say(field, ["ReadTimeout"], wait_s=2 * _READ_TIMEOUT_S + SAID_S_MAX)
        finally:
            over.set()
        all_ready(field)
        field.wait_until_recovered()


def refuse_connections(field: Field) -> None:
    """Cut every connection, and hang up on whoever comes."""
    for _ in range(field.rounds):
        with field.fault():
            field.queue.refuse()
            all_say(field, ["queue: SQS can't be reached"])
            field.pause(0.5, 2)
            field.queue.heal()
        all_ready(field)
        field.wait_until_recovered()


def forget_the_name(field: Field) -> None:
    """Let the queue's name be unknown at the start of a process, and later again, for a while each."""
    unknown = field.fleet.log.with_name("unknown")
    field.fleet.own = {0: {"AWS_ENDPOINT_URL": field.queue.url.replace("127.0.0.1", "sqs.test")}}
    field.fleet.command = lambda place: (
        ["tests.chaos.victims.nameless", str(unknown), "run"] if place == 0 else ["processor", "run"]
    )
    for number in range(field.rounds):
        unknown.touch()
        with field.fault():
            if number % 2 == 0:
                field.fleet.kill(0)
            else:
                # A connection that is open needs no name.
                field.queue.refuse()
                field.pause(0.2, 0.2)
                field.queue.heal()
            all_say(field, ["EndpointConnectionError"], places=[0])
            field.pause(0.5, 2)
            if number % 2 == 0 and (code := field.fleet.terminate(0)) != _WORK_LEFT:
                raise ScenarioFailed(f"a stop without a queue ended with {code}; expected {_WORK_LEFT}")
            unknown.unlink()
        all_ready(field)
        field.wait_until_recovered()


def truncate_replies(field: Field) -> None:
    """Cut answers short, lie about their length, leave them out, or give a login page: half of the time."""
    for _ in range(field.rounds):
        blinks(field, truncate(field.chance))
        all_ready(field)


def alter_replies(field: Field) -> None:
    """Alter answers by a bit or a character: half of the time."""
    for _ in range(field.rounds):
        blinks(field, alter(field.chance))
        all_ready(field)


def restart_the_queue(field: Field) -> None:
    """Stop the queue's server and start it again with its messages."""
    for _ in range(field.rounds):
        with field.fault():
            field.sqs.stop()
            all_say(field, ["queue: SQS can't be reached"])
            field.pause(0, 1)
            field.sqs.start()
        all_ready(field)
        field.wait_until_recovered()


def kill_by_a_message(field: Field) -> None:
    """Send messages that kill whoever reads them: they end in the dead-letter queue, their neighbours don't.

    Once nobody dies of them any more they come into the books by import and replay, which closes them.
    """
    field.fleet.command = lambda _: ["tests.chaos.victims.poisoned", "run"]
    _restart_all(field)
    for number in range(field.rounds):
        with field.fault():
            field.load.also(an_extra_event(field.chance, f"{POISON.decode()}-{number}"))
            field.wait_until(
                lambda number=number: _dead_letters(field) > number,  # type: ignore[misc]
                "the message is in the dead-letter queue",
                wait_s=90,
            )
        field.pause(1, 3)
    if (found := _dead_letters(field)) != field.rounds:
        raise ScenarioFailed(f"{found} dead letters; expected {field.rounds}, no neighbour among them")
    field.fleet.command = lambda _: ["processor", "run"]
    _restart_all(field)
    _bring_back(field)


def move_and_bring_back(field: Field) -> None:
    """Kill until messages have spent their receives, then import and replay them beside the traffic."""
    for _ in range(field.rounds):
        field.database.delay_s = 0.3
        with field.fault():
            give_up_at = time.monotonic() + 60
            while not _dead_letters(field):
                if time.monotonic() > give_up_at:
                    raise ScenarioFailed("no message was moved to the dead-letter queue")
                for member in field.fleet.members:
                    field.wait_until(
                        lambda place=member.place: field.held(place) >= _HELD_BY_THE_DYING,  # type: ignore[misc]
                        "the process holds messages",
                    )
                    field.fleet.kill(member.place)
            field.database.heal()
            field.pause(VISIBILITY_S, VISIBILITY_S + 1)
            _bring_back(field)
        field.wait_until_recovered()


def lose_large_bodies(field: Field) -> None:
    """Send bodies of hundreds of kilobytes, and lose, cut and alter what is said of them."""
    for number in range(field.rounds):
        for place in range(10):
            size_bytes = field.chance.randrange(50_000, 900_000)
            name = f"large-{number}-{place}"
            field.load.also(an_extra_event(field.chance, name, padding_bytes=size_bytes))
        field.pause(0.2, 0.5)
        for fault in (lose_reply, truncate(field.chance), alter(field.chance)):
            with while_sqs(field, fault, share=0.4):
                field.pause(1, 2)
        field.wait_until_recovered()


def _restart_all(field: Field) -> None:
    for member in field.fleet.members:
        field.fleet.kill(member.place)
    all_ready(field)


def _dead_letters(field: Field) -> int:
    return field.source().depth_with_dead_letters().get("dead_lettered", 0)


def _bring_back(field: Field) -> None:
    """Import all dead letters and replay them, through the proxies; none may be left."""

    def none_left() -> bool:
        _command(field, "dlq", "import")
        return not _dead_letters(field)

    field.wait_until(none_left, "the dead-letter queue is empty")
    _command(field, "rejection", "replay", "--reason", "dead_lettered")


def _command(field: Field, *words: str) -> None:
    """Run a command as an operator would; it may end with 1, where what is replayed is rejected again."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "processor", *words],
            env=dict(field.fleet.environment) | {"DATABASE_URL": field.postgres.url(DATABASE)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ScenarioFailed(f"`processor {' '.join(words)}` took more than 120 s") from error
    if done.returncode not in (0, 1):
        raise ScenarioFailed(f"`processor {' '.join(words)}` ended with {done.returncode}: {done.stderr}")


_BOTH_CLIENTS = {1: {"SQS_CLIENT": "boto3"}}


_HELD_BY_THE_DYING = 10

_SEEN_SOON = {"VISIBILITY_TIMEOUT_S": "2"}
"""For scenarios that are over soon, and mostly wait for what was lost to be seen again."""

_PATIENT = {"DATABASE_TIMEOUT_S": "10"}
"""On a slow way to the database, saves that wait for one with a void wait for seconds: that is no outage."""

_FEW_HELD = {"BUFFER_SIZE_MAX": "60"}
"""So many that their heartbeats take less than a visibility timeout of 4 s on a busy machine."""


def _scenario(
    name: str,
    work: Callable[[Field], None],
    rounds: int,
    short: int = 0,
    *,
    processes: int = 2,
    settings: dict[str, str] | None = None,
    exits: frozenset[int] = frozenset(),
    max_receive_count: int = 100,
) -> Scenario:
    """A scenario in which one process has the lean client and another has boto3's."""
    return Scenario(
        name,
        "SQS",
        work,
        rounds,
        rounds_short=short,
        processes=processes,
        settings=settings or {},
        own_settings=_BOTH_CLIENTS,
        exits=exits,
        max_receive_count=max_receive_count,
    )


SCENARIOS = [
    _scenario("parts of batches fail", fail_parts_of_batches, 4, settings=_PATIENT),
    _scenario("replies lost", lose_replies, 4, 1, settings=_SEEN_SOON),
    _scenario("requests lost", lose_requests, 4),
    _scenario("every message three times, to four at once", hand_over_thrice, 6, 1, processes=4),
    _scenario("late redelivery", redeliver_late, 6),
    _scenario("work longer than visibility", work_with_heartbeats, 4, settings=_FEW_HELD),
    _scenario("work longer than visibility, heartbeats lost", work_beyond_visibility, 4, settings=_FEW_HELD),
    _scenario("5xx, throttling, slow answers", refuse_calls, 4),
    _scenario("expired credentials", expire_credentials, 4),
    _scenario("silence", fall_silent, 2),
    _scenario("connections refused", refuse_connections, 5),
    _scenario("name unresolvable", forget_the_name, 4),
    _scenario("replies truncated", truncate_replies, 6),
    _scenario("replies altered", alter_replies, 6, 1, settings=_SEEN_SOON),
    _scenario("queue server restarted", restart_the_queue, 4),
    _scenario(
        "moved to the DLQ, imported and replayed",
        move_and_bring_back,
        3,
        settings=_FEW_HELD,
        max_receive_count=3,
    ),
    _scenario(
        "a message that kills the process",
        kill_by_a_message,
        3,
        exits=frozenset({-9}),
        max_receive_count=5,
    ),
    _scenario("large bodies, replies lost, cut and altered", lose_large_bodies, 4),
]
