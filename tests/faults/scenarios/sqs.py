"""What happens to the queue and on the way to it; the processes wait, say so, and go on by themselves."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator

from tests.faults.field import SETTINGS, Field, ScenarioFailed
from tests.faults.http_proxy import Interceptor
from tests.faults.interceptors import (
    BATCHES,
    EXTEND,
    RECEIVE,
    Copies,
    Late,
    Sometimes,
    alter,
    be_silent,
    delay,
    fail_some,
    lose_reply,
    lose_request,
    refuse,
    truncate,
)
from tests.faults.run import Scenario

VISIBILITY_S = float(SETTINGS["VISIBILITY_TIMEOUT_S"])
_READ_TIMEOUT_S = float(SETTINGS["RECEIVE_WAIT_S"]) + 15
_SAID_S_MAX = 15


def fail_parts_of_batches(field: Field) -> None:
    """Answer 200 to a delete or an extension of which some entries failed, through our fault or not."""
    for _ in range(field.rounds):
        # Slow, so that there is something to extend.
        field.database.delay_s = 0.2
        with _while_sqs(field, fail_some(field.chance, 0.4), share=0.7, only=BATCHES) as met:
            field.pause(4, 6)
            field.wait_until(lambda met=met: all(met[each] for each in BATCHES), "both kinds were met")  # type: ignore[misc]
            _demand_ready(field)
        field.database.heal()
        field.wait_until_recovered()


def lose_replies(field: Field) -> None:
    """Do what is asked and hang up before the answer: all of the time, then half of it."""
    for _ in range(field.rounds):
        _outage(field, lose_reply, ["ConnectionClosed"])
        _blinks(field, lose_reply)


def lose_requests(field: Field) -> None:
    """Hang up before the queue hears of it: all of the time, then half of it."""
    for _ in range(field.rounds):
        _outage(field, lose_request, ["ConnectionClosed"])
        _blinks(field, lose_request)


def hand_over_thrice(field: Field) -> None:
    """Hand every message to three receivers at once, while the first is at work on it."""
    for _ in range(field.rounds):
        copies = Copies(3)
        with _while_sqs(field, copies, only=[RECEIVE]):
            field.wait_until(lambda copies=copies: copies.copied >= 200, "200 copies were handed over")  # type: ignore[misc]
        field.wait_until_recovered()


def redeliver_late(field: Field) -> None:
    """Hand over again what was deleted some seconds ago, under a new receipt."""
    for number in range(field.rounds):
        late = Late(field.chance, after_s=field.chance.uniform(0.5, 4), strict=number % 2 == 0)
        with _while_sqs(field, late):
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
        with _while_sqs(field, lose_request, only=[EXTEND]):
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
        with _while_sqs(field, lambda call, forward: forward(call.fields), only=[EXTEND]):
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
        _outage(field, refuse(code, status), [code])
        _blinks(field, refuse(code, status))
        _blinks(field, delay(field.chance, 0.2, 2))


def expire_credentials(field: Field) -> None:
    """Refuse the key for a while, as when it has expired and another is on its way."""
    for number in range(field.rounds):
        code = ("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch")[number % 3]
        _outage(field, refuse(code, 403), [code])


def fall_silent(field: Field) -> None:
    """Take calls and answer none, for longer than an answer is waited for."""
    for _ in range(field.rounds):
        over = threading.Event()
        try:
            with _while_sqs(field, be_silent(over)):
                _all_say(field, ["ReadTimeout"], wait_s=_READ_TIMEOUT_S + _SAID_S_MAX)
        finally:
            over.set()
        _all_ready(field)
        field.wait_until_recovered()


def refuse_connections(field: Field) -> None:
    """Cut every connection, and hang up on whoever comes."""
    for _ in range(field.rounds):
        with field.fault():
            field.queue.refuse()
            _all_say(field, ["queue: SQS can't be reached"])
            field.pause(0.5, 2)
            field.queue.heal()
        _all_ready(field)
        field.wait_until_recovered()


def forget_the_name(field: Field) -> None:
    """Let the queue's name be unknown at the start of a process, and later again, for a while each."""
    unknown = field.fleet.log.with_name("unknown")
    field.fleet.own = {0: {"AWS_ENDPOINT_URL": field.queue.url.replace("127.0.0.1", "sqs.test")}}
    field.fleet.command = lambda place: (
        ["tests.faults.nameless", str(unknown), "run"] if place == 0 else ["processor", "run"]
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
            _all_say(field, ["EndpointConnectionError"], places=[0])
            field.pause(0.5, 2)
            if number % 2 == 0 and (code := field.fleet.terminate(0)):
                raise ScenarioFailed(f"a stop without a queue ended with {code}; expected 0")
            unknown.unlink()
        _all_ready(field)
        field.wait_until_recovered()


def truncate_replies(field: Field) -> None:
    """Cut answers short, lie about their length, leave them out, or give a login page: half of the time."""
    for _ in range(field.rounds):
        _blinks(field, truncate(field.chance))
        _all_ready(field)


def alter_replies(field: Field) -> None:
    """Alter answers by a bit or a character: half of the time."""
    for _ in range(field.rounds):
        _blinks(field, alter(field.chance))
        _all_ready(field)


def restart_the_queue(field: Field) -> None:
    """Stop the queue's server and start it again with its messages."""
    for _ in range(field.rounds):
        with field.fault():
            field.sqs.stop()
            _all_say(field, ["queue: SQS can't be reached"])
            field.pause(0, 1)
            field.sqs.start()
        _all_ready(field)
        field.wait_until_recovered()


# ── what they have in common ──────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _while_sqs(
    field: Field, fault: Interceptor, *, share: float = 1.0, only: Collection[str] = ()
) -> Iterator[object]:
    """Let a fault meet a share of the calls while the block runs; each call it met counts as a fault."""
    sometimes = Sometimes(fault, field.chance, share, only)
    with field.fault():
        field.queue.fault = sometimes
        yield sometimes.met
        field.queue.heal()
    if not sometimes.met:
        raise ScenarioFailed("the fault met no call")
    field.faults += sometimes.met.total() - 1


def _outage(field: Field, fault: Interceptor, words: Collection[str]) -> None:
    """Let a fault meet every call until each process says so on /readyz; demand that all come back."""
    with _while_sqs(field, fault):
        _all_say(field, words)
        field.pause(0.5, 2)
    _all_ready(field)
    field.wait_until_recovered()


def _blinks(field: Field, fault: Interceptor) -> None:
    """Let a fault meet every second call for some seconds."""
    with _while_sqs(field, fault, share=0.5):
        field.pause(2, 4)
    field.wait_until_recovered()


def _all_say(
    field: Field,
    words: Collection[str],
    *,
    places: Collection[int] | None = None,
    wait_s: float = _SAID_S_MAX,
) -> None:
    """Wait until /readyz of each process has said 503 and one of the words."""
    waited_for = set(range(len(field.fleet.members)) if places is None else places)

    def said() -> bool:
        for place in list(waited_for):
            status, text = field.fleet.ready(place)
            if status == 503 and any(word in text for word in words):
                waited_for.discard(place)
        return not waited_for

    field.wait_until(said, f"/readyz of each process says 503 and {' or '.join(words)}", wait_s=wait_s)


def _all_ready(field: Field) -> None:
    places = range(len(field.fleet.members))
    field.wait_until(
        lambda: all(field.fleet.ready(place)[0] == 200 for place in places), "all are ready again"
    )


def _demand_ready(field: Field) -> None:
    for member in field.fleet.members:
        status, text = field.fleet.ready(member.place)
        if status != 200:
            raise ScenarioFailed(f"process {member.place} is not ready: {status} {text}")


_BOTH_CLIENTS = {1: {"SQS_CLIENT": "boto3"}}


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
    )


SCENARIOS = [
    _scenario("parts of batches fail", fail_parts_of_batches, 4),
    _scenario("replies lost", lose_replies, 4, 1),
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
    _scenario("replies altered", alter_replies, 6, 1),
    _scenario("queue server restarted", restart_the_queue, 4),
]
