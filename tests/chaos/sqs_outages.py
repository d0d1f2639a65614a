"""Injects faults into the calls to SQS, and checks the report of each process on /readyz."""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator

from tests.chaos.field import Field, ScenarioFailed
from tests.chaos.traffic.http_proxy import Interceptor
from tests.chaos.traffic.interceptors import Sometimes

SAID_S_MAX = 15
"""So soon /readyz must say what is wrong; boto3's client tries twice before."""


@contextlib.contextmanager
def while_sqs(
    field: Field, fault: Interceptor, *, share: float = 1.0, only: Collection[str] = ()
) -> Iterator[Counter[str]]:
    """Let a fault meet a share of the calls while the block runs; each call it met counts as a fault."""
    sometimes = Sometimes(fault, field.chance, share, only)
    with field.fault():
        field.queue.fault = sometimes
        yield sometimes.met
        field.queue.heal()
    if not sometimes.met:
        raise ScenarioFailed("the fault met no call")
    field.faults += sometimes.met.total() - 1


def outage(field: Field, fault: Interceptor, words: Collection[str]) -> None:
    """Let a fault meet every call until each process says so on /readyz; demand that all come back."""
    with while_sqs(field, fault):
        all_say(field, words)
        field.pause(0.5, 2)
    all_ready(field)
    field.wait_until_recovered()


def blinks(field: Field, fault: Interceptor) -> None:
    """Let a fault meet every second call for some seconds."""
    with while_sqs(field, fault, share=0.5):
        field.pause(2, 4)
    field.wait_until_recovered()


def all_say(
    field: Field,
    words: Collection[str],
    *,
    places: Collection[int] | None = None,
    wait_s: float = SAID_S_MAX,
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


def all_ready(field: Field) -> None:
    """Wait until /readyz of each process says 200."""
    places = range(len(field.fleet.members))
    field.wait_until(
        lambda: all(field.fleet.ready(place)[0] == 200 for place in places), "all are ready again"
    )


def demand_ready(field: Field) -> None:
    """Raise ScenarioFailed where /readyz of a process doesn't say 200."""
    for member in field.fleet.members:
        status, text = field.fleet.ready(member.place)
        if status != 200:
            raise ScenarioFailed(f"process {member.place} is not ready: {status} {text}")
