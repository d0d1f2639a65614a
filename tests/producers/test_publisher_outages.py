"""One rule for every door: an outage is waited out for a bound that is said, when it begins and when it ends.

What a queue refuses for now, while it answers, is no outage: so often it is asked, and no longer.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from processor.errors import SourceUnavailable
from producers.publishers import UNAVAILABLE, Answer, CallFailed
from producers.publishers.opening import PUBLISHERS
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun, Receipt, RefusedMessage

Send = Callable[[Mapping[int, Outgoing]], Answer]


@dataclass
class AClock:
    """A clock that moves as it is told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class APublisher:
    """A door whose calls take `call_s` of the clock each, and end as the script says; then it takes all."""

    clock: AClock
    script: list[Send] = field(default_factory=list)
    call_s: float = 5.0
    sends: int = 0
    name: str = "door"
    ordered: bool = False

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        self.sends += 1
        self.clock.now_s += self.call_s
        return self.script.pop(0)(batch) if self.script else taking(batch)

    def close(self) -> None:
        """Nothing is open."""


def taking(batch: Mapping[int, Outgoing]) -> Answer:
    return Answer({index: f"d-{index}" for index in batch})


def away(_batch: Mapping[int, Outgoing]) -> Answer:
    raise CallFailed("Away", "nobody answers", outage=True)


def behind_a_gateway(batch: Mapping[int, Outgoing]) -> Answer:
    return Answer(again=dict.fromkeys(batch, (UNAVAILABLE, "the queue is away")))


def not_now(batch: Mapping[int, Outgoing]) -> Answer:
    return Answer(again=dict.fromkeys(batch, ("over_quota", "not now")))


def published(publisher: APublisher, *, outage_s_max: float = 60, count: int = 1) -> list[Receipt]:
    publish_run = PublishRun(
        publisher, senders=1, wait_s_max=0.001, outage_s_max=outage_s_max, clock=publisher.clock
    )
    return list(publish_run.publish(Outgoing(f"{number}") for number in range(count)))


@pytest.mark.parametrize("outage", [away, behind_a_gateway])
def test_an_outage_is_waited_out_however_many_tries_that_takes(
    outage: Send, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        receipts = published(APublisher(AClock(), [outage] * 11))

    assert all(isinstance(receipt, AcceptedMessage) for receipt in receipts)
    begins, ends = (record.getMessage() for record in caplog.records)
    assert "door can't be reached" in begins
    assert "trying again for up to 60 s (--wait)" in begins
    assert ends == "the queue door answers again"


@pytest.mark.parametrize("outage", [away, behind_a_gateway])
def test_no_try_begins_after_the_bound_which_is_said(outage: Send) -> None:
    publisher = APublisher(AClock(), [taking, *[outage] * 1000])

    with pytest.raises(SourceUnavailable, match=r"can't be reached: .*; gave up after 60 s \(--wait\)"):
        published(publisher, count=11)

    # One was taken; what the first call of the outage took counts.
    assert publisher.sends == 1 + 60 / publisher.call_s


def test_a_queue_that_is_back_for_seconds_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is killed again and again is back in between, and was away all along by long pauses."""
    clock, pauses = AClock(), list[float]()

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return False

    publish_run = PublishRun(APublisher(clock, [away] * 1000), senders=1, wait_s_max=30, clock=clock)
    monkeypatch.setattr(publish_run._halted, "wait", wait)
    with pytest.raises(SourceUnavailable):
        list(publish_run.publish([Outgoing("{}")]))

    assert len(pauses) > 10
    assert max(pauses) <= 2


def test_a_bound_of_nothing_is_one_try() -> None:
    publisher = APublisher(AClock(), [away] * 10)

    with pytest.raises(SourceUnavailable):
        published(publisher, outage_s_max=0)

    assert publisher.sends == 1


def test_after_an_outage_what_is_refused_for_now_is_asked_as_often_as_ever() -> None:
    publisher = APublisher(AClock(), [*[away] * 10, *[not_now] * 6])

    [receipt] = published(publisher)

    assert isinstance(receipt, AcceptedMessage)


def test_a_queue_that_answers_and_takes_nothing_refuses_in_the_end() -> None:
    publisher = APublisher(AClock(), [not_now] * 100, call_s=0.001)

    [receipt] = published(publisher)

    assert isinstance(receipt, RefusedMessage)
    assert publisher.sends == 7


def test_outages_one_after_the_other_have_their_bound_each() -> None:
    publisher = APublisher(AClock(), [*[away] * 8, not_now, *[away] * 8])

    [receipt] = published(publisher)

    assert isinstance(receipt, AcceptedMessage)


_URLS = {
    "http": "http://127.0.0.1:1",
    "grpc": "127.0.0.1:1",
    "amqp": "amqp://127.0.0.1:1/?queue=events",
    "kafka": "kafka://127.0.0.1:1/events",
    "sqs": "http://127.0.0.1:1/000000000000/events",
}


@pytest.mark.parametrize("to", PUBLISHERS)
def test_every_door_says_how_long_it_waits_and_how_many_were_accepted(to: str) -> None:
    environment = {"PATH": os.environ["PATH"], "RETRY_WAIT_S_MAX": "0.1", "AWS_REGION": "us-east-1"}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    words = ["fake", "--events", "30", "--to", to, "--url", _URLS[to], "--wait", "4"]

    done = subprocess.run(
        [sys.executable, "-m", "producers", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 4, done.stderr
    assert "accepted 0, refused 0, without an answer" in done.stdout
    assert done.stderr.count("trying again for up to 4 s (--wait)") == 1
    assert done.stderr.count("gave up after 4 s (--wait)") == 1
    assert "Traceback" not in done.stderr
