"""Writes the intake's results as HTTP responses: for one event, or for an array."""

from collections.abc import Sequence
from typing import Any

import orjson

from processor.runtime.escaping import json_bytes_escaped
from producers.gateway.http.problems import STATUSES, Answer, ProblemAnswer, problem_of
from producers.gateway.items import Taken, Word

ACCEPTED, NO_CONTENT, SOME = 202, 204, 207

_NOTHING: Answer = (NO_CONTENT, [], b"")


def answer_one(word: Word, taken_status: int = ACCEPTED) -> Answer:
    """Answer a request with a single event; with `taken_status` 204 the response has no body."""
    if isinstance(word, Taken):
        return _NOTHING if taken_status == NO_CONTENT else _json(taken_status, _taken(word))
    return problem_of(word).as_response()


def answer_all(words: Sequence[Word], taken_status: int = ACCEPTED) -> Answer:
    """Answer an array: `taken_status` if all were taken, 207 if some; else their common status, or 422."""
    items = [_item(index, word) for index, word in enumerate(words)]
    taken = sum(isinstance(word, Taken) for word in words)
    if taken == len(words) and taken_status == NO_CONTENT:
        return _NOTHING
    if taken or not words:
        return _json(taken_status if taken == len(words) else SOME, {"items": items})
    problems = [problem_of(word) for word in words if not isinstance(word, Taken)]
    same = len({(problem.code, problem.status) for problem in problems}) == 1
    waits = [problem.retry_after_s for problem in problems if problem.retry_after_s is not None]
    return ProblemAnswer(
        problems[0].code if same else "none_taken",
        problems[0].status if same else STATUSES["none_taken"],
        f"none of the {len(words)} events was accepted; see `items`",
        retry_after_s=max(waits) if same and waits else None,
        members={"items": items},
    ).as_response()


def _item(index: int, word: Word) -> dict[str, Any]:
    if isinstance(word, Taken):
        return {"index": index, "status": ACCEPTED} | _taken(word)
    found = problem_of(word)
    return {"index": index, "status": found.status, "problem": found.as_dict()}


def _taken(word: Taken) -> dict[str, Any]:
    return {
        "message_id": word.message_id,
        "delivery_id": word.delivery_id,
        "tenant_id": word.tenant_id,
        "made_id": word.made_id,
    }


def _json(status: int, value: dict[str, Any]) -> Answer:
    body = json_bytes_escaped(orjson.dumps(value))
    return status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body
