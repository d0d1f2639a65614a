"""The HTTP door against a server that answers what a test says: what is posted, what answers mean."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from processor.errors import SettingsError, SourceUnavailable
from processor.wire.manifest import payload_digest
from producers.fake.events import EventForm, FakeEvent, encode
from producers.publishers import Answer, CallFailed
from producers.publishers.http import HttpPublisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, PublishRun, RefusedMessage
from tests.scripted_server import CLOSE, ScriptedServer, an_answer


def an_outgoing(body: str = '{"id":"o-1"}', **changes: Any) -> Outgoing:
    return Outgoing(body, **changes)


def taken(index: int) -> dict[str, Any]:
    return {"index": index, "status": 202, "message_id": f"m-{index}", "delivery_id": f"d-{index}"}


def not_taken(index: int, status: int, code: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "status": status, "problem": {"code": code, "detail": "because"} | more}


def items(*said: Mapping[str, Any], status: int = 202) -> bytes:
    return an_answer({"items": said}, status=status)


def a_problem(status: int, code: str, retry_after: str | None = None) -> bytes:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return an_answer({"code": code, "detail": "because"}, status=status, headers=headers)


def sent(*answers: bytes | None, bodies: tuple[str, ...] = ('{"n":0}', '{"n":1}')) -> Answer:
    """What the door makes of the server's answers to one batch."""
    with ScriptedServer(*answers) as server:
        publisher = HttpPublisher(server.url)
        try:
            return publisher.send({10 + place: an_outgoing(body) for place, body in enumerate(bodies)})
        finally:
            publisher.close()


def posted(*messages: Outgoing, key: SecretStr | None = None) -> list[tuple[str, bytes]]:
    """Head and body of each request that these messages make."""
    with ScriptedServer(items(*(taken(place) for place in range(len(messages))))) as server:
        publisher = HttpPublisher(server.url, key)
        publisher.send(dict(enumerate(messages)))
        publisher.close()
        halves = [request.split(b"\r\n\r\n", 1) for request in server.requests]
    return [(head.decode(), body) for head, body in halves]


# ── what is posted ────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_one_array_of_the_bodies_as_they_are() -> None:
    pulse = (
        '{"tenant_id": "acme", "product_sku": "s", "used_amount": 1.10000000000000000001, "use_unity": "GB"}'
    )

    [(head, body)] = posted(an_outgoing('{"id": 1}'), an_outgoing(pulse))

    assert head.startswith("POST /v1/events HTTP/1.1")
    assert body == b'[{"id": 1},' + pulse.encode() + b"]"


def test_what_stands_in_attributes_becomes_a_native_event_with_the_same_digest() -> None:
    event = FakeEvent(
        "acme", "pulse", "p-1", "meter", "2026-11-22T10:00:00Z", {"note": "é", "n": 2}, schema_version=7
    )
    outgoing = encode(event, EventForm.ATTRIBUTES)

    [(_, body)] = posted(outgoing)

    [native] = json.loads(body)
    payload = native.pop("payload")
    assert native == {
        "id": "p-1",
        "tenant_id": "acme",
        "event_type": "pulse",
        "producer": "meter",
        "occurred_at": "2026-11-22T10:00:00Z",
        "schema_version": 7,
    }
    assert payload_digest(json.dumps(payload)) == outgoing.digest


def test_what_is_no_json_goes_by_itself_and_can_not_pass_for_two_items() -> None:
    bodies = ['{"n":0}', '{"n":1},{"n":2}', "1],[2", '{"n":3}']

    requests = posted(*(an_outgoing(body) for body in bodies))

    assert [body for _, body in requests] == [b'[{"n":0},{"n":3}]', b'{"n":1},{"n":2}', b"1],[2"]


def test_the_key_goes_into_the_header_and_into_nothing_else() -> None:
    [(head, _)] = posted(an_outgoing(), key=SecretStr("ep_secret"))

    assert "Authorization: Bearer ep_secret" in head
    assert "secret" not in HttpPublisher("http://127.0.0.1:1", SecretStr("ep_secret")).name


def test_a_connection_is_kept() -> None:
    with ScriptedServer(items(taken(0))) as server:
        publisher = HttpPublisher(server.url)
        for _ in range(3):
            publisher.send({0: an_outgoing()})
        publisher.close()

    assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h",
        "http://",
        "http://u:secret@h",
        "http://h/?a",
        "http://h/#a",
        "h:80",
        "http://h:99999",
        "http://[",
    ],
)
def test_a_url_that_is_no_gateways_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(SettingsError, match="expected http://HOST:PORT") as told:
        HttpPublisher(url)

    assert "secret" not in str(told.value)


def test_a_path_before_the_doors_own_is_kept() -> None:
    with ScriptedServer(items(taken(0))) as server:
        for url in (f"{server.url}/gate/", f"{server.url}/gate/v1/events"):
            HttpPublisher(url).send({0: an_outgoing()})

    assert [request.split()[1] for request in server.requests] == [b"/gate/v1/events"] * 2


# ── what an answer means ──────────────────────────────────────────────────────────────────────────────


def test_each_item_has_its_own_word() -> None:
    said = items(
        not_taken(1, 422, "invalid"),
        taken(0),
        not_taken(2, 429, "over_quota", retry_after_s=3),
        not_taken(3, 503, "unavailable", retry_after_s=1),
        status=207,
    )

    answer = sent(said, bodies=('{"n":0}', '{"n":1}', '{"n":2}', '{"n":3}'))

    assert answer.accepted == {10: "d-0"}
    assert answer.refused == {11: ("invalid", "because")}
    assert answer.again == {12: ("over_quota", "because"), 13: ("unavailable", "because")}
    assert answer.wait_s == 3


def test_items_count_whatever_the_status_of_the_whole() -> None:
    answer = sent(items(not_taken(0, 403, "forbidden"), not_taken(1, 403, "forbidden"), status=403))

    assert set(answer.refused) == {10, 11}


def test_an_item_that_nobody_asked_for_says_nothing() -> None:
    answer = sent(items(taken(7), {"status": 202}, taken(1)))

    assert answer.accepted == {11: "d-1"}


@pytest.mark.parametrize(
    ("status", "code"), [(503, "unavailable"), (429, "over_quota"), (408, "timeout"), (500, "internal")]
)
def test_what_passes_is_an_outage_and_tells_how_long_to_wait(status: int, code: str) -> None:
    with pytest.raises(CallFailed) as told:
        sent(a_problem(status, code, retry_after="4"))

    assert (told.value.code, told.value.outage, told.value.wait_s) == (code, True, 4)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_blames_the_request_blames_some_message_in_it(status: int) -> None:
    with pytest.raises(CallFailed) as told:
        sent(a_problem(status, "malformed"))

    assert not told.value.outage


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "GATEWAY_KEY"), (403, "GATEWAY_KEY"), (404, "--url"), (301, "--url"), (200, "--url")],
)
def test_where_no_other_try_helps_the_settings_are_named(status: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        sent(an_answer(body=b"<html>", status=status))


@pytest.mark.parametrize("answer", [CLOSE, b"no HTTP\r\n\r\n"])
def test_an_answer_that_gets_lost_is_an_outage(answer: bytes) -> None:
    with pytest.raises(CallFailed) as told:
        sent(answer)

    assert told.value.outage


def test_what_was_taken_stays_taken_when_one_by_itself_fails() -> None:
    answer = sent(items(taken(0)), a_problem(400, "malformed"), CLOSE, bodies=('{"n":0}', "no", "neither"))

    assert answer == Answer({10: "d-0"}, {11: ("malformed", "because")})


def test_texts_that_are_no_json_wait_an_outage_out_as_all_others() -> None:
    with pytest.raises(CallFailed) as told:
        sent(CLOSE, bodies=("no", "neither"))

    assert told.value.outage


@pytest.mark.parametrize(("wait_s_max", "waited_s"), [(30.0, 3.0), (0.5, 0.5)])
def test_the_publisher_waits_as_long_as_it_is_told_to_within_its_bound(
    monkeypatch: pytest.MonkeyPatch, wait_s_max: float, waited_s: float
) -> None:
    waits: list[float] = []

    def wait(timeout: float) -> bool:
        waits.append(timeout)
        return False

    with ScriptedServer(a_problem(503, "unavailable", retry_after="3"), items(taken(0))) as server:
        publish_run = PublishRun(HttpPublisher(server.url), senders=1, wait_s_max=wait_s_max)
        monkeypatch.setattr(publish_run._halted, "wait", wait)
        [receipt] = publish_run.publish([an_outgoing()])

    assert isinstance(receipt, AcceptedMessage)
    assert waits == [waited_s]


def test_one_bad_message_does_not_cost_its_neighbours() -> None:
    with ScriptedServer(
        a_problem(413, "too_large"), items(taken(0)), a_problem(413, "too_large"), items(taken(0))
    ) as server:
        receipts = list(
            PublishRun(HttpPublisher(server.url), senders=1).publish([an_outgoing(f"{n}") for n in range(3)])
        )

    assert [receipt.message.body for receipt in receipts if isinstance(receipt, RefusedMessage)] == ["1"]
    assert [receipt.message.body for receipt in receipts if isinstance(receipt, AcceptedMessage)] == [
        "0",
        "2",
    ]


def test_a_gateway_that_stays_away_ends_the_sending() -> None:
    publisher = HttpPublisher("http://127.0.0.1:1")

    with pytest.raises(SourceUnavailable, match=r"http://127\.0\.0\.1:1 can't be reached"):
        list(PublishRun(publisher, senders=1, outage_s_max=0).publish([an_outgoing()]))
