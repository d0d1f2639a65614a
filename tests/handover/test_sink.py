"""What an answer of the sink means, before anything is marked by it."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from processor.handover.lines import LineId, UsageLine, batch_key
from processor.handover.sink import (
    AllAccepted,
    Answer,
    BatchRefused,
    PartlyAccepted,
    SinkUnavailable,
    meaning,
)

KEYS = ["one", "two"]


def meant(status: int, said: Any = b"", **headers: str) -> Answer:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return meaning(status, named, body, 1000, KEYS)


def results(*statuses: Any) -> dict[str, Any]:
    return {"results": [{"key": key, "status": status} for key, status in zip(KEYS, statuses, strict=False)]}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize(
    "said", [b"", b"OK", b" ok\n", b"{}", b"[]", b"null", b'{"accepted": 2}', b'["one"]']
)
def test_a_2xx_is_a_yes_to_all_lines(status: int, said: bytes) -> None:
    assert meant(status, said) == AllAccepted()


@pytest.mark.parametrize("said", [b"<html></html>", b"{", b"\xff\xfe", b"error", b"[" * 900, b"x" * 2000])
def test_a_2xx_that_says_something_else_is_no_yes(said: bytes) -> None:
    answer = meant(200, said)

    assert isinstance(answer, SinkUnavailable)
    assert answer.reached


@pytest.mark.parametrize("status", [200, 207, 400, 422])
def test_each_line_has_the_status_that_the_answer_gives_it(status: int) -> None:
    assert meant(status, results(200, 201)) == AllAccepted()
    assert meant(status, results(204, 409)) == AllAccepted()
    assert meant(status, results(200, 422)) == PartlyAccepted({"two": "status 422"})
    assert meant(status, results(200, 422)["results"]) == PartlyAccepted({"two": "status 422"})
    assert meant(status, results(503, 302)) == PartlyAccepted({"one": "status 503", "two": "status 302"})


@pytest.mark.parametrize("odd", ["200", True, None, 200.0, 7, [200]])
def test_a_status_that_is_none_is_no_yes(odd: object) -> None:
    answer = meant(200, results(200, odd))

    assert isinstance(answer, PartlyAccepted)
    assert list(answer.troubles) == ["two"]


def test_a_line_is_taken_only_if_it_is_named_and_never_refused() -> None:
    twice = {"results": [{"key": "one", "status": 422}, *results(200, 200)["results"]]}

    assert meant(200, results(200)) == PartlyAccepted({"two": "missing from the response"})
    assert meant(200, {"results": []}) == PartlyAccepted(dict.fromkeys(KEYS, "missing from the response"))
    assert meant(200, twice) == PartlyAccepted({"one": "status 422"})


@pytest.mark.parametrize(("status", "for_content"), [(400, True), (413, True), (422, True), (409, False)])
def test_some_statuses_are_about_this_batch(status: int, for_content: bool) -> None:
    assert meant(status) == BatchRefused(f"status {status}", for_content)


@pytest.mark.parametrize("status", [207, 301, 308, 401, 403, 404, 405, 408, 415, 429, 500, 502, 503])
def test_every_other_status_is_about_the_sink(status: int) -> None:
    answer = meant(status)

    assert isinstance(answer, SinkUnavailable)
    assert answer.trouble.startswith(f"status {status}")


def test_a_rest_is_given_as_long_as_it_is_asked_for_and_no_longer_than_ten_minutes() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    def rest(asked: str) -> float | None:
        answer = meant(503, Retry_After=asked)
        assert isinstance(answer, SinkUnavailable)
        return answer.retry_after_s

    assert [rest("7"), rest("-1"), rest("1e9"), rest("soon"), rest("nan")] == [7, 0, 600, None, None]
    assert 55 < (rest(in_a_minute) or 0) <= 60


def a_line(**changes: Any) -> UsageLine:
    identity: dict[str, Any] = {
        "tenant_id": "acme",
        "meter_id": 1,
        "window_start": datetime(2026, 11, 22, 10, tzinfo=UTC),
        "group_key": '{"use_unity": "GB", "product_sku": "disk"}',
        "revision": 1,
    } | {name: value for name, value in changes.items() if name != "meter"}
    return UsageLine(
        LineId(**identity),
        meter=changes.get("meter", "pulse"),
        group_names=("product_sku", "use_unity"),
        value_pointer="/used_amount",
        value="0.30",
        messages=2,
        window_start="2026-11-22T10:00:00Z",
        window_end="2026-11-22T11:00:00Z",
    )


def test_a_line_is_the_same_bytes_for_ever() -> None:
    """A sink that has been fed by an older release must know the lines of a newer one."""
    assert a_line().json("number") == (
        b'{"tenant_id":"acme","product_sku":"disk","use_unity":"GB","used_amount":0.30,'
        b'"window_start":"2026-11-22T10:00:00Z","window_end":"2026-11-22T11:00:00Z","revision":1,"messages":2,'
        b'"key":"7776738a9427b76463f98de5820410b9e4cb2929028630f78fbe0181138434a1"}'
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant_id": "globex"},
        {"meter": "pulses"},
        {"window_start": datetime(2026, 11, 22, 11, tzinfo=UTC)},
        {"group_key": "{}"},
        {"revision": 2},
    ],
)
def test_another_line_has_another_key(changes: dict[str, Any]) -> None:
    assert a_line(**changes).key != a_line().key


def test_a_batch_is_known_by_its_lines_in_whatever_order() -> None:
    assert batch_key(["a", "b"]) == batch_key(["b", "a"]) != batch_key(["a", "c"])
