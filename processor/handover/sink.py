"""The sink: the service that lines are handed over to, by HTTP, and what its answers mean.

    2xx, no body, `OK` or JSON       accepted
    2xx, 4xx with results by line    each line by its own status
    400 413 422                      refused for something in it: which line, halves will tell
    409                              refused, and no other batch is concerned
    anything else, or no answer      nobody's line is at fault: the sink is in trouble

Only the status and our own words are passed on; what a sink says may hold what it was sent.
"""

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from processor.brokers.http_client import (
    HttpEndpoint,
    HttpMalformed,
    HttpTimeout,
    HttpTrouble,
    HttpUnreachable,
    host_of,
)
from processor.wire.bounds import wait_s_of

ANSWER_BYTES_MAX = 64 * 1024
ANSWER_BYTES_PER_LINE = 512
"""A sink that speaks of each line has the more to say the more there are."""

RETRY_AFTER_S_MAX = 600.0
"""A sink may ask for rest, but not for ever."""

_ABOUT_CONTENT = (400, 413, 422)
_CONFLICT = 409
_MULTI_STATUS = 207


@dataclass(frozen=True, slots=True)
class AllAccepted:
    """The sink has all lines."""


@dataclass(frozen=True, slots=True)
class PartlyAccepted:
    """The sink spoke of each line; `troubles` has those by key that it did not take, and why."""

    troubles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """The sink refused this batch; `for_content` says that something in it may be the cause."""

    trouble: str
    for_content: bool


@dataclass(frozen=True, slots=True)
class SinkUnavailable:
    """The sink works for no batch at the moment; `reached` says that somebody answered."""

    trouble: str
    reached: bool
    status: int | None = None
    retry_after_s: float | None = None


Answer = AllAccepted | PartlyAccepted | BatchRefused | SinkUnavailable


class Sink(Protocol):
    """Whoever takes lines."""

    def send(self, body: bytes, *, key: str, line_keys: Sequence[str]) -> Answer:
        """Send a JSON array of lines under its idempotency key, once; say what came of it. Raises nothing."""


class NoSink:
    """Stands where a sink would, where nothing is sent."""

    def send(self, body: bytes, *, key: str, line_keys: object) -> Any:  # noqa: ANN401 - as Sink has it
        """Raise NotImplementedError."""
        raise NotImplementedError


class HttpSink:
    """Posts to a URL, over a connection of its own each time, and waits `timeout_s` for all of the answer."""

    def __init__(self, url: str, *, token: str | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._url = url
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._headers = [
            ("Host", host_of(url)),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "event-processor"),
            ("Connection", "close"),
            *([] if token is None else [("Authorization", f"Bearer {token}")]),
        ]

    def send(self, body: bytes, *, key: str, line_keys: Sequence[str]) -> Answer:
        """Send it once; see Sink."""
        bytes_max = ANSWER_BYTES_MAX + ANSWER_BYTES_PER_LINE * len(line_keys)
        limit_s = self._timeout_s
        endpoint = HttpEndpoint(
            self._url, connect_timeout_s=limit_s, read_timeout_s=limit_s, total_timeout_s=limit_s
        )
        try:
            answer = endpoint.post(
                [*self._headers, ("Idempotency-Key", key)],
                body,
                path=self._path,
                bytes_max=bytes_max,
                until_close=True,
            )
        except HttpTrouble as error:
            return self._no_answer(error)
        finally:
            endpoint.close()
        return meaning(answer.status, answer.headers, answer.body, bytes_max, line_keys)

    def _no_answer(self, error: HttpTrouble) -> SinkUnavailable:
        """Say in words of ours why there is no answer; the error's own may quote the sink."""
        if isinstance(error, HttpTimeout) or isinstance(error.__cause__, TimeoutError):
            return SinkUnavailable(f"no whole answer within {self._timeout_s:g} s", reached=False)
        if isinstance(error, HttpMalformed):
            return SinkUnavailable("an answer that is not HTTP", reached=True)
        otherwise = "no connection" if isinstance(error, HttpUnreachable) else "the connection broke"
        words = (words for kind, words in _WORDS if isinstance(error.__cause__, kind))
        return SinkUnavailable(next(words, otherwise), reached=False)


def meaning(
    status: int, headers: Mapping[str, str], said: bytes, bytes_max: int, line_keys: Sequence[str]
) -> Answer:
    """Say what an answer means for the lines that it is about; `headers` have lower-case names."""
    if len(said) > bytes_max:
        return SinkUnavailable(
            f"status {status} with an answer of more than {bytes_max} bytes", reached=True, status=status
        )
    results = _results(said) if status // 100 in (2, 4) else None
    if results is not None:
        troubles = _troubles(results, line_keys)
        return PartlyAccepted(troubles) if troubles else AllAccepted()
    if status // 100 == 2:  # noqa: PLR2004 - the class of statuses that say yes
        trouble = "names no lines" if status == _MULTI_STATUS else "has a body that is not JSON"
        if status != _MULTI_STATUS and _says_nothing_else(said):
            return AllAccepted()
        return SinkUnavailable(f"status {status} {trouble}", reached=True, status=status)
    return _no(status, headers)


def _no(status: int, headers: Mapping[str, str]) -> Answer:
    if status in (*_ABOUT_CONTENT, _CONFLICT):
        return BatchRefused(f"status {status}", for_content=status in _ABOUT_CONTENT)
    if status // 100 == 3:  # noqa: PLR2004 - the class of statuses that lead elsewhere
        return SinkUnavailable(
            f"status {status}: redirects are not followed; set USAGE_SINK_URL to where it leads",
            reached=True,
            status=status,
        )
    asked_s = wait_s_of(headers.get("retry-after"), RETRY_AFTER_S_MAX)
    return SinkUnavailable(f"status {status}", reached=True, status=status, retry_after_s=asked_s)


def _results(said: bytes) -> list[dict[str, Any]] | None:
    """Find what an answer says line by line: {"results": [{"key", "status"}, ...]}, or such an array."""
    try:
        document = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and isinstance(document.get("results"), list):
        found = document["results"]
    elif isinstance(document, list) and any(map(_is_result, document)):
        found = document
    else:
        return None
    return [result for result in found if _is_result(result)]


def _is_result(value: object) -> bool:
    return isinstance(value, dict) and "key" in value and "status" in value


def _troubles(results: Sequence[Mapping[str, Any]], line_keys: Sequence[str]) -> dict[str, str]:
    """Name the lines that were not taken; one that is not spoken of was not, as far as we know."""
    troubles: dict[str, str] = {}
    named: set[str] = set()
    for result in results:
        key, status = str(result["key"]), result["status"]
        named.add(key)
        if not isinstance(status, int) or isinstance(status, bool):
            troubles[key] = "a status that is no number"
        elif not (200 <= status < 300 or status == _CONFLICT):  # noqa: PLR2004 - 2xx
            troubles[key] = f"status {status}" if 100 <= status < 1000 else "a status that is none"  # noqa: PLR2004
    return {
        key: troubles.get(key, "not named in the answer")
        for key in line_keys
        if key in troubles or key not in named
    }


def _says_nothing_else(said: bytes) -> bool:
    if said.strip().lower() in (b"", b"ok"):
        return True
    try:
        json.loads(said)
    except (ValueError, RecursionError):
        return False
    return True


_WORDS = (
    ((socket.gaierror, UnicodeError), "its name can't be resolved"),
    (ssl.SSLCertVerificationError, "its certificate was not verified"),
    (ssl.SSLError, "TLS failed"),
    (ConnectionRefusedError, "connection refused"),
)
