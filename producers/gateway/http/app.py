"""The ASGI application: routes, authentication, and a problem response for every error.

Gate ─▶ Taking  /ingest, /v1/events          bytes to the intake, without models in between
   ├──▶ Pages   /docs, /livez, /metrics, …   pages and probes without a key; 404 and 405
   └─ a bug: 500, and no content of the request in response or log
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import structlog

from processor.wire.formats import PULSE
from producers.gateway.effort import ITEM
from producers.gateway.http import HttpLimits, measures, reading
from producers.gateway.http.answers import ACCEPTED, answer_all, answer_one
from producers.gateway.http.heads import Body, credentials_of, fields_of, trace_of
from producers.gateway.http.pages import Pages
from producers.gateway.http.places import Pace, Stay, holder_of
from producers.gateway.http.problems import Answer, Headers, RequestRefused, problem, problem_of
from producers.gateway.http.reading import Found, Receive, Scope, Send
from producers.gateway.items import Caller, Intake, Item, Keys, Refusal, Taken, Why, Word
from producers.gateway.shares import Shares

log = structlog.get_logger(__name__)

INGEST, EVENTS = "/ingest", "/v1/events"
_HEADERS_FEW = 32

_GONE = 499
"""The status that proxies log for a client that disconnected before the response."""

_STOPPED = Refusal(Why.UNAVAILABLE, "the gateway stopped before the queue answered; send it again")

BODIES_HELD_MAX = 64
"""The memory for bodies, in bodies of the largest size; ordinary bodies never reach it."""


def make_app(intake: Intake, keys: Keys, limits: HttpLimits, room: Shares | None = None) -> "Gate":
    """Make the application, for any ASGI server. The caller opens and closes the intake and the keys.

    `room` is the memory for bodies in bytes, if it is shared with the protocol.
    """
    shares = Shares(limits.requests_max), room or Shares(BODIES_HELD_MAX * limits.body_bytes_max)
    pace = Pace()
    takings = {
        INGEST: Taking(intake, keys, limits, shares, pace, PULSE, limits.taken_status),
        EVENTS: Taking(intake, keys, limits, shares, pace),
    }
    return Gate(takings, Pages(intake, keys, limits, (INGEST, EVENTS)), pace)


class Taking:
    """One route that takes events: from the request to the intake's results and the response.

    `event_type` is the only accepted type (None: any), `taken_status` the status for accepted events.
    """

    def __init__(
        self,
        intake: Intake,
        keys: Keys,
        limits: HttpLimits,
        shares: tuple[Shares, Shares],
        pace: Pace,
        event_type: str | None = None,
        taken_status: int = ACCEPTED,
    ) -> None:
        self._intake = intake
        self._keys = keys
        self._limits = limits
        # The request slots, and the memory for bodies in bytes.
        self._shares = shares
        self._pace = pace
        self._event_type = event_type
        self._taken_status = taken_status

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Answer one request. Raises RequestRefused, and Disconnected if the client is gone."""
        held = Stay(*self._shares)
        try:
            return await self._answer(scope, receive, held)
        finally:
            held.end()

    async def _answer(self, scope: Scope, receive: Receive, held: Stay) -> Answer:
        headers: Headers = scope["headers"]
        fields = fields_of(headers)
        caller = await self._keys.caller(credentials_of(fields))
        if isinstance(caller, Refusal):
            await self._pace.wait(scope)
            raise RequestRefused(problem_of(caller))
        if caller.tenant_id is None:
            caller = replace(caller, address=holder_of(scope))
        # The slot is taken before the body is read.
        held.begin(caller.holder)
        if owing := self._intake.owing(caller):
            raise RequestRefused(problem_of(owing))
        announced = reading.announced_body(fields, self._limits)
        body = await self._body(scope, receive, caller, announced, held)
        take_apart = partial(
            reading.items_of, body, announced, fields, headers, self._limits, self._event_type
        )
        if body[:1] == b"{" and len(headers) < _HEADERS_FEW:
            # A single event is not parsed here.
            found: Found | Refusal = take_apart()
        else:
            found = await self._intake.do(caller, len(body), take_apart)
        if isinstance(found, Refusal):
            raise RequestRefused(problem_of(found))
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
        """Read and decompress the body, and charge all of it to its caller."""
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
            raise RequestRefused(problem_of(plain))
        held.add(len(plain))
        self._intake.charge(caller, len(plain) - len(body))
        return plain

    def _charge(self, caller: Caller, size_bytes: int) -> None:
        """Charge a part of a body without Content-Length. Raises RequestRefused for a tenant in debt."""
        self._intake.charge(caller, size_bytes)
        if owing := self._intake.owing(caller):
            raise RequestRefused(problem_of(owing))

    def _answer_one(self, item: Item, word: Word) -> Answer:
        return answer_one(self._said(item, word), self._taken_status)

    def _answer_all(self, items: list[Item], words: list[Word]) -> Answer:
        return answer_all([*map(self._said, items, words)], self._taken_status)

    def _said(self, item: Item, word: Word) -> Word:
        """Name the missing fields of a body in no known format, if the route takes only one type."""
        if self._event_type is not None and isinstance(word, Refusal) and word.why is Why.MALFORMED:
            return reading.no_pulse(item.body, self._limits) or word
        return word


class Gate:
    """The outermost handler: counts requests, and lets no exception escape."""

    def __init__(self, takings: Mapping[str, Taking], pages: Pages, pace: Pace) -> None:
        self.document = pages.document
        self._takings = takings
        self._pages = pages
        self._pace = pace
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that disconnected gets no response."""
        path = scope["path"]
        route = path if path in self._pages.methods else "other"
        taking = self._takings.get(path) if scope["method"] == "POST" else None
        begun_at_s = time.perf_counter()
        status = _GONE
        self._inside += 1
        if route == "/metrics":
            measures.in_flight.set(self._inside)
        try:
            if taking is not None:
                answer = await taking.answer(scope, receive)
            else:
                await self._pace.wait(scope)
                answer = await self._pages.answer(scope)
            status = answer[0]
            await respond(send, answer)
        except reading.Disconnected:
            pass
        except RequestRefused as error:
            status = error.problem.status
            await respond(send, error.problem.as_response())
        except asyncio.CancelledError:
            # STOP_TIMEOUT_S is over, and this request has no result yet.
            status = _STOPPED.why.status
            await respond(send, problem_of(_STOPPED).as_response())
        except Exception as error:  # noqa: BLE001 - uvicorn would log and show the exception
            found = problem("internal", "internal error; the gateway's log has more under this instance")
            # The text and the traceback are not logged, as they may contain the event.
            log.error("request_failed", route=route, error=_place(error), instance=found.instance)  # noqa: TRY400
            if status == _GONE:
                status = found.status
                await respond(send, found.as_response())
        finally:
            self._inside -= 1
            measures.answered(route, status).inc()
            measures.seconds(route).observe(time.perf_counter() - begun_at_s)


async def respond(send: Send, answer: Answer) -> None:
    """Send a complete response."""
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _place(error: Exception) -> str:
    """Name an exception's type and place in the code; its text may contain the event."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"
