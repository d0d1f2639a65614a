"""The HTTP sink: the service that receives lines, and the meaning of its responses.

    2xx, no body, `OK` or JSON       accepted
    2xx, 4xx with results per line   each line has its own status
    400 413 422                      refused for its content; splitting the batch finds the bad line
    409                              refused; other batches are not concerned
    anything else, or no response    no line is at fault: the sink is unavailable

Only the status and our own messages are passed on: a response may quote the request.
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
"""A response with results per line grows with the number of lines."""

RETRY_AFTER_S_MAX = 600.0
"""The upper bound of a sink's Retry-After."""

_ABOUT_CONTENT = (400, 413, 422)
_CONFLICT = 409
_MULTI_STATUS = 207


@dataclass(frozen=True, slots=True)
class AllAccepted:
    """The sink accepted all lines."""


@dataclass(frozen=True, slots=True)
class PartlyAccepted:
    """The sink gave results per line; `troubles` maps the key of each refused line to the reason."""

    troubles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """The sink refused this batch; `for_content` is True if its content may be the cause."""

    trouble: str
    for_content: bool


@dataclass(frozen=True, slots=True)
class SinkUnavailable:
    """The sink accepts no batch at present; `reached` is True if a server responded."""

    trouble: str
    reached: bool
    status: int | None = None
    retry_after_s: float | None = None


Answer = AllAccepted | PartlyAccepted | BatchRefused | SinkUnavailable


class Sink(Protocol):
    """A receiver of lines."""

    def send(self, body: bytes, *, key: str, line_keys: Sequence[str]) -> Answer:
        """Send a JSON array of lines once, under its idempotency key; return the outcome. Raises nothing."""


class NoSink:
    """A placeholder for commands that send nothing."""

    def send(self, body: bytes, *, key: str, line_keys: object) -> Any:  # noqa: ANN401 - as Sink has it
        """Raise NotImplementedError."""
        raise NotImplementedError


class HttpSink:
    """Posts to a URL with a new connection per request; `timeout_s` bounds the whole exchange."""

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
        """Send the batch once; see Sink."""
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
        """Describe a failed request in our own words; the error's text may quote the sink."""
        if isinstance(error, HttpTimeout) or isinstance(error.__cause__, TimeoutError):
            return SinkUnavailable(f"no complete response within {self._timeout_s:g} s", reached=False)
        if isinstance(error, HttpMalformed):
            return SinkUnavailable("the response is not HTTP", reached=True)
        otherwise = "connection failed" if isinstance(error, HttpUnreachable) else "connection lost"
        words = (words for kind, words in _WORDS if isinstance(error.__cause__, kind))
        return SinkUnavailable(next(words, otherwise), reached=False)


def meaning(
    status: int, headers: Mapping[str, str], said: bytes, bytes_max: int, line_keys: Sequence[str]
) -> Answer:
    """Translate a response into the outcome for its lines; `headers` have lower-case names."""
    if len(said) > bytes_max:
        return SinkUnavailable(
            f"status {status} with a response of more than {bytes_max} bytes", reached=True, status=status
        )
    results = _results(said) if status // 100 in (2, 4) else None
    if results is not None:
        troubles = _troubles(results, line_keys)
        return PartlyAccepted(troubles) if troubles else AllAccepted()
    if status // 100 == 2:  # noqa: PLR2004 - the class of success
        trouble = "without results per line" if status == _MULTI_STATUS else "with a body that is not JSON"
        if status != _MULTI_STATUS and _says_nothing_else(said):
            return AllAccepted()
        return SinkUnavailable(f"status {status} {trouble}", reached=True, status=status)
    return _no(status, headers)


def _no(status: int, headers: Mapping[str, str]) -> Answer:
    if status in (*_ABOUT_CONTENT, _CONFLICT):
        return BatchRefused(f"status {status}", for_content=status in _ABOUT_CONTENT)
    if status // 100 == 3:  # noqa: PLR2004 - the class of redirects
        return SinkUnavailable(
            f"status {status}: redirects are not followed; set USAGE_SINK_URL to the final URL",
            reached=True,
            status=status,
        )
    asked_s = wait_s_of(headers.get("retry-after"), RETRY_AFTER_S_MAX)
    return SinkUnavailable(f"status {status}", reached=True, status=status, retry_after_s=asked_s)


def _results(said: bytes) -> list[dict[str, Any]] | None:
    """Find the results per line: {"results": [{"key", "status"}, ...]}, or such an array; None: none."""
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
    """Map the keys of refused lines to reasons; a line without a result counts as refused."""
    troubles: dict[str, str] = {}
    named: set[str] = set()
    for result in results:
        key, status = str(result["key"]), result["status"]
        named.add(key)
        if not isinstance(status, int) or isinstance(status, bool):
            troubles[key] = "the status is not an integer"
        elif not (200 <= status < 300 or status == _CONFLICT):  # noqa: PLR2004 - 2xx
            troubles[key] = f"status {status}" if 100 <= status < 1000 else "invalid status"  # noqa: PLR2004
    return {
        key: troubles.get(key, "missing from the response")
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
    ((socket.gaierror, UnicodeError), "host name can't be resolved"),
    (ssl.SSLCertVerificationError, "certificate verification failed"),
    (ssl.SSLError, "TLS failed"),
    (ConnectionRefusedError, "connection refused"),
)
