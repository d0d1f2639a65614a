"""Serve /livez, /readyz and /metrics for orchestrators and Prometheus, on one port."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import make_wsgi_app

from processor.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Probes:
    """A small HTTP server in its own thread.

    `trouble` returns why the process is not working now ('' if it is), `alive` whether it can recover.
    /livez and /readyz answer 200 or 503 with a JSON object. `setting` is the setting of the port.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        alive: Callable[[], bool],
        trouble: Callable[[], str],
        setting: str = "HTTP_PORT",
    ) -> None:
        self._alive = alive
        self._trouble = trouble
        self._metrics = make_wsgi_app()
        try:
            self._server = make_server(
                host, port, self._answer, server_class=_ProbesServer, handler_class=_QuietHandler
            )
        except OSError as error:
            raise SettingsError(
                f"{setting}: {host}:{port} can't be listened on ({error.strerror}); "
                f"set {setting} to a free port, or to 0 for any"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)

    @property
    def port(self) -> int:
        """The listening port."""
        return self._server.server_port

    def start(self) -> None:
        """Start the server thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server and free the port."""
        if self._thread.is_alive():
            # `shutdown` would block for ever if the thread has died.
            self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                page: Iterable[bytes] = self._metrics(environ, start_response)
                return page
            case "/livez":
                alive = self._alive()
                return _json(start_response, ok=alive, body={"alive": alive})
            case "/readyz":
                trouble = self._trouble()
                return _json(start_response, ok=not trouble, body={"ready": not trouble, "trouble": trouble})
            case _:
                start_response("404 Not Found", [("Content-Type", "application/json")])
                return [orjson.dumps({"paths": ["/livez", "/readyz", "/metrics"]})]


def _json(start_response: "StartResponse", *, ok: bool, body: dict[str, Any]) -> list[bytes]:
    start_response("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "application/json")])
    return [orjson.dumps(body)]


class _ProbesServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the inherited signature
        """Log nothing, because probes come every few seconds."""
