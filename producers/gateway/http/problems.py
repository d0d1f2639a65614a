"""Error responses: RFC 9457 problem details, each with a code and advice."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from processor.runtime.escaping import json_bytes_escaped
from processor.wire.beside import NAMES
from producers.gateway.items import Refusal

Headers: TypeAlias = list[tuple[bytes, bytes]]
Answer: TypeAlias = tuple[int, Headers, bytes]

PROBLEM_TYPE = b"application/problem+json"

RETRY_AFTER_S = 1
"""The default of Retry-After: a full gateway has free slots again within a second."""

TITLES = {
    "malformed": "Malformed request",
    "unauthenticated": "No valid API key",
    "forbidden": "The API key may not send this",
    "not_found": "Not found",
    "method_not_allowed": "Method not allowed",
    "timeout": "Request timeout",
    "too_large": "Too large",
    "unsupported_media_type": "Neither JSON nor a CloudEvent in JSON",
    "invalid": "Not a valid event",
    "over_quota": "Over the quota, or the gateway is at capacity",
    "head_too_large": "Request headers too large",
    "internal": "Internal error",
    "unavailable": "The queue is unavailable",
    "none_taken": "None of the events was accepted",
}
"""The title of each problem code; /docs lists them."""

STATUSES = {
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid": 422,
    "over_quota": 429,
    "head_too_large": 431,
    "internal": 500,
    "unavailable": 503,
    "none_taken": 422,
}


@dataclass(frozen=True, slots=True)
class ProblemAnswer:
    """One error response. `members` are additional members beside the standard ones."""

    code: str
    status: int
    detail: str
    errors: tuple[Mapping[str, Any], ...] = ()
    retry_after_s: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    instance: str = field(default_factory=lambda: f"urn:gateway:{secrets.token_hex(8)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the members by RFC 9457; `instance` identifies this response, also in the log."""
        found: dict[str, Any] = {
            "type": f"/docs#{self.code}",
            "title": TITLES[self.code],
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "instance": self.instance,
        }
        if self.errors:
            found["errors"] = self.errors
        if self.retry_after_s is not None:
            found["retry_after_s"] = self.retry_after_s
        return found | dict(self.members)

    def as_response(self) -> Answer:
        """Return status, headers and body."""
        body = json_bytes_escaped(orjson.dumps(self.as_dict()))
        headers = [(b"content-type", PROBLEM_TYPE), (b"content-length", b"%d" % len(body)), *self.headers]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.status == 401:  # noqa: PLR2004 - a status of HTTP
            headers.append((b"www-authenticate", b'Bearer realm="events"'))
        return self.status, headers, body


class RequestRefused(Exception):
    """Ends the handling of a request with this problem."""

    def __init__(self, problem: ProblemAnswer) -> None:
        super().__init__(problem.code)
        self.problem = problem


def problem(code: str, detail: str, **more: Any) -> ProblemAnswer:  # noqa: ANN401 - the fields of Problem
    """Make a problem with the status of its code."""
    return ProblemAnswer(code, STATUSES[code], detail, **more)


def refused(code: str, detail: str, **more: Any) -> RequestRefused:  # noqa: ANN401 - the fields of Problem
    """Make the exception that ends a request with this problem."""
    return RequestRefused(problem(code, detail, **more))


def problem_of(refusal: Refusal) -> ProblemAnswer:
    """Convert a refusal of the intake or of the keys."""
    why, retry_after_s = refusal.why, refusal.retry_after_s
    errors = tuple({**error, "message": _of_headers(error["message"])} for error in refusal.errors)
    if retry_after_s is None and why.status in (429, 503):
        retry_after_s = RETRY_AFTER_S
    return ProblemAnswer(why.word, why.status, _of_headers(refusal.detail), errors, retry_after_s)


_NAMES = "|".join(NAMES)
_NAMED = re.compile(rf"(headers?) ({_NAMES})\b(?: and ({_NAMES})\b)?")


def _of_headers(words: str) -> str:
    """Replace names of wire-format attributes by the names of their HTTP headers."""
    if "attribute" not in words:
        return words
    for attribute in ("the message attribute", "the attribute", "attributes"):
        words = words.replace(f"{attribute} ", "headers " if attribute == "attributes" else "the header ")
    return _NAMED.sub(
        lambda said: f"{said[1]} " + " and ".join(map(_header, filter(None, said.groups()[1:]))), words
    )


def _header(name: str) -> str:
    return "X-" + name.replace("_", "-").title()
