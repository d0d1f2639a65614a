"""The application: which path does what, who may come in, and a problem for whatever goes wrong.

Gate ─▶ Taking    /ingest, /v1/events      bytes to the intake, no model on the way
   ├──▶ FastAPI   /docs, /livez, /metrics  what people and machines ask; 404 and 405
   └─ a bug: 500, and not a word of the request in answer or log
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp

from processor.wire import PULSE
from producers.gateway.effort import ITEM
from producers.gateway.http import Limits, measures, reading
from producers.gateway.http.answers import ACCEPTED, answer_all, answer_one
from producers.gateway.http.heads import Body, credentials_of, fields_of, trace_of
from producers.gateway.http.openapi import describe, handshake, operation
from producers.gateway.http.places import Stay, holder_of, visitor_of
from producers.gateway.http.problems import (
    Headers,
    Problem,
    Refused,
    problem,
    problem_of,
)
from producers.gateway.http.reading import Message, Receive, Scope, Send
from producers.gateway.items import Caller, Intake, Item, Keys, Refusal, Taken, Why, Word
from producers.gateway.shares import Shares

log = structlog.get_logger(__name__)

Answer: TypeAlias = tuple[int, Headers, bytes]

INGEST, EVENTS = "/ingest", "/v1/events"
_PATHS = frozenset((INGEST, EVENTS, "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"))
_CLOSE = (b"connection", b"close")

_STOPPED = Refusal(Why.UNAVAILABLE, "the gateway stopped before the queue had answered; send it again")

BODIES_HELD_MAX = 64
"""So many bodies of the largest size may be held at once; of the ordinary size that is any number."""


def make_app(intake: Intake, keys: Keys, limits: Limits, room: Shares | None = None) -> "Gate":
    """Make the application, for any ASGI server; whoever runs it opens and closes what it is given.

    `room` is the bytes that may be held at once, if others hold some of them, too.
    """
    app = FastAPI(title="Event gateway", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(StarletteHTTPException, _http_exception)
    shares = Shares(limits.requests_max), room or Shares(BODIES_HELD_MAX * limits.body_bytes_max)
    takings = {
        INGEST: Taking(intake, keys, limits, shares, PULSE, limits.taken_status),
        EVENTS: Taking(intake, keys, limits, shares),
    }
    for path, taking in takings.items():
        app.add_api_route(path, taking.documented, methods=["POST"], **operation(path))
        app.add_api_route(path, _handshake_of(limits), methods=["OPTIONS"], **handshake(path))
    _add_probes(app, intake, keys)
    return Gate(app, takings, describe(app))


class Taking:
    """One path that takes events: from the request to the intake's words, and an answer.

    `event_type` is the only one that it takes (None: any), `taken_status` what it answers to what was taken.
    """

    def __init__(
        self,
        intake: Intake,
        keys: Keys,
        limits: Limits,
        shares: tuple[Shares, Shares],
        event_type: str | None = None,
        taken_status: int = ACCEPTED,
    ) -> None:
        self._intake = intake
        self._keys = keys
        self._limits = limits
        # The places of requests, and the bytes of bodies that are held.
        self._shares = shares
        self._event_type = event_type
        self._taken_status = taken_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that went away is told nothing."""
        held = Stay(*self._shares)
        try:
            answer = await self._answer(scope, receive, held)
        except Refused as error:
            answer = error.problem.as_response()
        except reading.Disconnected:
            return
        finally:
            held.end()
        await respond(send, answer)

    async def documented(self) -> None:
        """Give FastAPI something to describe; the gate leads past it."""

    async def _answer(self, scope: Scope, receive: Receive, held: Stay) -> Answer:
        headers: Headers = scope["headers"]
        fields = fields_of(headers)
        caller = await self._keys.caller(credentials_of(fields))
        if isinstance(caller, Refusal):
            raise Refused(problem_of(caller))
        if caller.tenant_id is None:
            caller = replace(caller, address=holder_of(scope))
        # Nothing of the body is awaited before this.
        held.begin(caller.holder)
        if owing := self._intake.owing(caller):
            raise Refused(problem_of(owing))
        announced = reading.announced_body(fields, self._limits)
        body = await self._body(scope, receive, caller, announced, held)
        take_apart = partial(
            reading.items_of, body, announced, fields, headers, self._limits, self._event_type
        )
        found = await self._intake.do(caller, len(body), take_apart)
        if isinstance(found, Refusal):
            raise Refused(problem_of(found))
        if b"traceparent" in fields:
            caller = replace(caller, trace=trace_of(fields, headers))
        if isinstance(found, Item):
            [word] = await self._intake.take([found], caller)
            if isinstance(word, Taken):
                return answer_one(word, self._taken_status)
            weight, answer = len(body), partial(self._answer_one, found, word)
        else:
            words = await self._intake.take(found, caller) if found else []
            weight, answer = len(body) + ITEM * len(found), partial(self._answer_all, found, words)
        return await self._intake.finish(caller, weight, answer)

    async def _body(
        self, scope: Scope, receive: Receive, caller: Caller, announced: Body, held: Stay
    ) -> bytes:
        """Read the body, unpacked, and charge all of it to its caller."""
        if announced.length is not None:
            self._intake.charge(caller, announced.length)
        charge = partial(self._charge, caller)
        body = await reading.read_body(scope, receive, announced, self._limits, held, charge)
        measures.body_bytes.inc(len(body))
        if not announced.encoding:
            return body
        unpack = partial(reading.unpacked, body, announced.encoding, self._limits)
        plain = await self._intake.do(caller, self._limits.body_bytes_max, unpack)
        if isinstance(plain, Refusal):
            raise Refused(problem_of(plain))
        held.add(len(plain))
        self._intake.charge(caller, len(plain) - len(body))
        return plain

    def _charge(self, caller: Caller, size_bytes: int) -> None:
        """Charge a part of a body that did not say its length. Raises Refused for a tenant that owes."""
        self._intake.charge(caller, size_bytes)
        if owing := self._intake.owing(caller):
            raise Refused(problem_of(owing))

    def _answer_one(self, item: Item, word: Word) -> Answer:
        return answer_one(self._said(item, word), self._taken_status)

    def _answer_all(self, items: list[Item], words: list[Word]) -> Answer:
        return answer_all([*map(self._said, items, words)], self._taken_status)

    def _said(self, item: Item, word: Word) -> Word:
        """Say of what is in no known format what it lacks, where only one can be meant."""
        if self._event_type is not None and isinstance(word, Refusal) and word.why is Why.MALFORMED:
            return reading.no_pulse(item.body, self._limits) or word
        return word


class Gate:
    """Stands before everything: counts, and lets no exception out."""

    def __init__(self, app: ASGIApp, takings: Mapping[str, ASGIApp], document: dict[str, Any]) -> None:
        self.document = document
        self._app = app
        self._takings = takings
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Past FastAPI, whose way in costs as much as all the rest of a request; what it says of these paths,
        # and to other methods on them, stays its own.
        taking = self._takings.get(scope["path"]) if scope["method"] == "POST" else None
        route = scope["path"] if scope["path"] in _PATHS else "other"
        begun_at_s = time.perf_counter()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._inside += 1
        if route == "/metrics":
            measures.in_flight.set(self._inside)
        try:
            if taking is None:
                if (visitor := visitor_of(scope)) is not None:
                    visitor.rests()
                await self._app(scope, receive, noted)
            else:
                await taking(scope, receive, noted)
        except asyncio.CancelledError:
            # STOP_TIMEOUT_S is over, and this one has no word yet.
            await respond(noted, problem_of(_STOPPED).as_response())
        except Exception as error:  # noqa: BLE001 - nothing may reach uvicorn, which logs and shows it
            reference = await _fault(noted, answered=bool(status))
            # Without its text and its trace, which may have the event in them.
            log.error("request_failed", route=route, error=_place(error), instance=reference)  # noqa: TRY400
        finally:
            self._inside -= 1
            # 499 is what proxies call a client that went away before there was an answer.
            measures.answered(route, status or 499).inc()
            measures.seconds(route).observe(time.perf_counter() - begun_at_s)


async def respond(send: Send, answer: Answer) -> None:
    """Send a whole answer."""
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _fault(send: Send, *, answered: bool) -> str:
    """Answer 500, unless an answer has begun; gives the name under which it is logged."""
    found = problem("internal", "the gateway failed; its log has more under this instance", headers=(_CLOSE,))
    answer = found.as_response()
    if not answered:
        await respond(send, answer)
    return found.instance


def _place(error: Exception) -> str:
    """Say which exception came from where; its text may have the event in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


def _handshake_of(limits: Limits) -> Callable[[Request], Awaitable[Response]]:
    rate = "*" if limits.rate is None else str(max(1, int(limits.rate * 60)))

    async def answer(request: Request) -> Response:
        """Say that events may be sent, to a sender of web hooks that asks before it does."""
        headers = {"allow": "POST, OPTIONS"}
        if origin := request.headers.get("webhook-request-origin"):
            headers |= {"webhook-allowed-origin": origin, "webhook-allowed-rate": rate}
        return Response(headers=headers)

    return answer


def _add_probes(app: FastAPI, intake: Intake, keys: Keys) -> None:
    """Add what orchestrators and Prometheus ask."""

    async def livez() -> Response:
        """Say that the process answers."""
        return Response(b'{"alive":true}', media_type="application/json")

    async def readyz() -> Response:
        """Say whether events would be taken now, and if not, what is in the way."""
        trouble = "; ".join(filter(None, (await intake.ready(), await keys.ready())))
        body = orjson.dumps({"ready": not trouble, "trouble": trouble})
        return Response(body, 503 if trouble else 200, media_type="application/json")

    async def metrics() -> Response:
        """Give the metrics in Prometheus's text format."""
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    for path, answer in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics)):
        app.add_api_route(path, answer, methods=["GET"], **operation(path))


async def _http_exception(_request: Request, error: Exception) -> Response:
    """Say as a problem what Starlette would say in plain text: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException | StarletteHTTPException) else 500
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
    if status == 405:  # noqa: PLR2004 - HTTP's own number
        found = problem(
            "method_not_allowed",
            f"this path takes {allowed} alone",
            headers=((b"allow", allowed.encode()),),
        )
    elif status == 404:  # noqa: PLR2004 - HTTP's own number
        found = problem("not_found", f"events go to POST {INGEST} or POST {EVENTS}; /docs says how")
    else:
        found = Problem("internal", status, "the gateway can't answer this")
    status, headers, body = found.as_response()
    response = Response(body, status)
    response.raw_headers = headers
    return response
