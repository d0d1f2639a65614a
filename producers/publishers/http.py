"""The publisher for the HTTP gateway: one array of events to POST /v1/events, with a result for each.

    messages ─┬ JSON ─▶ [event, …] ─▶ 202 │ 207 │ 4xx with `items` ─▶ Answer
              └ not JSON ─▶ one request each, so that only this message is refused

An invalid text would make the whole array invalid, and one bad message must not affect the others.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

from processor.brokers.http_client import HttpEndpoint, HttpTrouble, host_of
from processor.errors import SettingsError
from processor.wire.bounds import NOT_READABLE, wait_s_of
from producers.publishers import WAIT_S_MAX, Answer, CallFailed
from producers.publishers.outgoing import Outgoing

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Longer than a gateway waits for its queue: its 503 is more precise than our timeout."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024

_PATH = "/v1/events"
_MULTIPLE, _BAD, _UNAUTHORIZED, _FORBIDDEN, _TIMEOUT, _TOO_MANY, _SERVER = 300, 400, 401, 403, 408, 429, 500
_AT_FAULT = frozenset({_BAD, 413, 422})
"""Statuses that mean a faulty request."""


class HttpPublisher:
    """One HTTP gateway. Each thread that sends has a connection of its own."""

    def __init__(self, url: str, key: SecretStr | None = None) -> None:
        base, self._path = _taken_apart(url)
        self._name = base + self._path.removesuffix(_PATH)
        self._headers = [
            ("Host", host_of(base)),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            *([] if key is None else [("Authorization", f"Bearer {key.get_secret_value()}")]),
        ]
        self._endpoint = HttpEndpoint(
            base, connect_timeout_s=CONNECT_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S
        )

    @property
    def name(self) -> str:
        """The gateway's URL, without the key."""
        return self._name

    @property
    def ordered(self) -> bool:
        """False: concurrent requests may arrive in any order."""
        return False

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send all JSON messages in one request, and each other message in its own request."""
        answer = Answer()
        events, alone = _sorted(batch)
        if events:
            self._send_array(events, answer)
        for index, body in alone.items():
            try:
                self._send_alone(index, body, answer)
            except CallFailed:
                if not (answer.accepted or answer.refused or answer.again):
                    raise
                # Earlier results stay valid; messages without a result are sent again.
                break
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _send_array(self, events: Mapping[int, bytes], answer: Answer) -> None:
        status, said, wait_s = self._post(b"[" + b",".join(events.values()) + b"]")
        items = said.get("items")
        if not isinstance(items, list):
            raise _whole(status, said, wait_s, self._name)
        indexes = list(events)
        for item in items:
            # A malformed result is no result.
            with suppress(*NOT_READABLE):
                place = item["index"]
                if isinstance(place, int) and 0 <= place < len(indexes):
                    _note(answer, indexes[place], item)

    def _send_alone(self, index: int, body: bytes, answer: Answer) -> None:
        status, said, wait_s = self._post(body)
        if status < _MULTIPLE:
            answer.accepted[index] = str(said.get("delivery_id", ""))
            return
        failed = _whole(status, said, wait_s, self._name)
        if failed.outage:
            raise failed
        answer.refused[index] = (failed.code, failed.reason)

    def _post(self, body: bytes) -> tuple[int, dict[str, Any], float]:
        try:
            answer = self._endpoint.post(
                self._headers, body, path=self._path, bytes_max=ANSWER_BYTES_MAX, until_close=True
            )
        except HttpTrouble as error:
            raise CallFailed(type(error).__name__, f"no answer from {self._name}", outage=True) from error
        try:
            said = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            said = None
        wait_s = _seconds(answer.headers.get("retry-after"))
        return answer.status, said if isinstance(said, dict) else {}, wait_s


def _sorted(batch: Mapping[int, Outgoing]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Separate valid JSON, which can go into an array, from the rest: `1],[2` would become two items."""
    events, alone = {}, {}
    for index, message in batch.items():
        body = message.body.encode()
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            alone[index] = body
        else:
            events[index] = _native(message, body) if message.attributes else body
    return events, alone


def _native(message: Outgoing, payload: bytes) -> bytes:
    """Write attributes and body as one JSON object; the text of the payload stays as it is."""
    said = dict(message.attributes)
    envelope: dict[str, Any] = {"id": said.pop("message_id")} if "message_id" in said else {}
    version = said.pop("schema_version", None)
    envelope |= said
    if version is not None:
        envelope["schema_version"] = int(version) if re.fullmatch("[1-9][0-9]{0,8}", version) else version
    return orjson.dumps(envelope | {"payload": orjson.Fragment(payload)})


def _note(answer: Answer, index: int, item: Mapping[str, Any]) -> None:
    """Add the gateway's result of one item to the answer."""
    status = item.get("status", _SERVER)
    if status < _MULTIPLE:
        answer.accepted[index] = str(item.get("delivery_id", ""))
        return
    problem = item.get("problem")
    problem = problem if isinstance(problem, dict) else {}
    asked, (code, reason) = problem.get("retry_after_s"), _words(status, problem)
    if _passes(status):
        answer.again[index] = (code, reason)
        answer.wait_s = max(answer.wait_s, _seconds(asked))
    else:
        answer.refused[index] = (code, reason)


def _whole(status: int, said: Mapping[str, Any], wait_s: float, name: str) -> CallFailed:
    """Make the failure of a whole request. Raises SettingsError if a retry can't help."""
    code, reason = _words(status, said)
    if _passes(status) or status in _AT_FAULT:
        return CallFailed(code, reason, outage=_passes(status), wait_s=wait_s)
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        raise SettingsError(f"the gateway {name} rejects this API key ({code}: {reason}); see GATEWAY_KEY")
    raise SettingsError(
        f"{name} answers POST {_PATH} with {status} ({code}): this is not an event gateway; see --url"
    )


def _passes(status: int) -> bool:
    return status in (_TIMEOUT, _TOO_MANY) or status >= _SERVER


def _words(status: int, problem: Mapping[str, Any]) -> tuple[str, str]:
    return str(problem.get("code", status)), str(problem.get("detail", ""))


def _seconds(said: object) -> float:
    return wait_s_of(said, WAIT_S_MAX) or 0.0


def _taken_apart(url: str) -> tuple[str, str]:
    """Return scheme and host, and the request path. Raises SettingsError, without quoting a password."""
    try:
        parts = urlsplit(url)
        fits = parts.port != 0 and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        parts, fits = urlsplit(""), False
    if not fits or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingsError("invalid --url: expected http://HOST:PORT or https://HOST, and nothing more")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/").removesuffix(_PATH) + _PATH
