"""Routes without a key: static responses, and responses that concurrent requests share.

GET, HEAD ─▶ /docs, /openapi.json, /livez ─▶ bytes
   └───────▶ /readyz, /metrics ─▶ Shared: once a second
OPTIONS ─▶ the handshake of web hooks      anything else ─▶ 404, 405
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from producers.gateway.http import HttpLimits
from producers.gateway.http.openapi import ASSETS, docs_page, document
from producers.gateway.http.problems import Answer, problem
from producers.gateway.http.reading import Scope
from producers.gateway.items import Intake, Keys
from producers.gateway.quotas import Quotas

AT_ONCE = 5
"""Consecutive refreshes of a shared response that are allowed at once, after an idle time."""

_OWN_FILES = (
    b"content-security-policy",
    b"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
)
_ASSET = ((b"content-encoding", b"gzip"), (b"cache-control", b"max-age=86400"))


class Shared:
    """A response that is refreshed once per second on average, and shared by requests in between."""

    def __init__(
        self, make: Callable[[], Awaitable[Answer]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._quotas = Quotas(1.0, burst=AT_ONCE, clock=clock)
        self._making: asyncio.Future[Answer] | None = None

    async def get(self) -> Answer:
        """Return the response, fresh or as last made."""
        making = self._making
        if making is None or (making.done() and self._quotas.take(None) is None):
            making = self._making = asyncio.ensure_future(self._make())
        # A client that disconnects must not cancel it for the others.
        return making.result() if making.done() else await asyncio.shield(making)


class Pages:
    """All routes that do not take events. `methods` has the allowed methods by path."""

    def __init__(self, intake: Intake, keys: Keys, limits: HttpLimits, takings: tuple[str, ...]) -> None:
        self.document = document()
        self.methods = dict.fromkeys(takings, "POST")
        self._fixed = {
            "/livez": _answer(b'{"alive":true}', b"application/json"),
            "/openapi.json": _answer(orjson.dumps(self.document), b"application/json"),
            "/docs": _answer(docs_page(), b"text/html; charset=utf-8", _OWN_FILES),
        }
        self._fixed |= {path: _answer(body, kind, *_ASSET) for path, (kind, body) in ASSETS.items()}
        self._shared = {"/readyz": Shared(self._readyz), "/metrics": Shared(self._metrics)}
        self._takings = takings
        self._intake = intake
        self._keys = keys
        self._rate = b"*" if limits.rate is None else b"%d" % max(1, int(limits.rate * 60))
        self.methods |= dict.fromkeys((*self._fixed, *self._shared), "GET")

    async def answer(self, scope: Scope) -> Answer:
        """Answer one request."""
        path, method = scope["path"], scope["method"]
        allowed = self.methods.get(path)
        if allowed == "GET" and method in ("GET", "HEAD"):
            return self._fixed.get(path) or await self._shared[path].get()
        if method == "OPTIONS" and allowed == "POST":
            return self._handshake(scope)
        if allowed is None:
            words = f"events go to POST {' or POST '.join(self._takings)}; /docs says how"
            return problem("not_found", words).as_response()
        allow = ((b"allow", b"GET, HEAD" if allowed == "GET" else allowed.encode()),)
        words = f"this path accepts only {allowed}"
        return problem("method_not_allowed", words, headers=allow).as_response()

    def _handshake(self, scope: Scope) -> Answer:
        """Answer the validation request of CloudEvents web hooks: events are welcome."""
        headers = [(b"allow", b"POST, OPTIONS"), (b"content-length", b"0")]
        if origin := dict(scope["headers"]).get(b"webhook-request-origin"):
            headers += [(b"webhook-allowed-origin", origin), (b"webhook-allowed-rate", self._rate)]
        return 200, headers, b""

    async def _readyz(self) -> Answer:
        """Report whether events can be taken now, and the trouble if not."""
        trouble = "; ".join(filter(None, (await self._intake.ready(), await self._keys.ready())))
        body = orjson.dumps({"ready": not trouble, "trouble": trouble})
        return _answer(body, b"application/json", status=503 if trouble else 200)

    async def _metrics(self) -> Answer:
        """Return the metrics in Prometheus's text format."""
        return _answer(generate_latest(), CONTENT_TYPE_LATEST.encode())


def _answer(body: bytes, media_type: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> Answer:
    length = b"%d" % len(body)
    return status, [(b"content-type", media_type), (b"content-length", length), *headers], body
