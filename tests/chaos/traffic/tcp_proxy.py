"""A proxy for PostgreSQL that can cut, refuse, hang, delay, and lose a COMMIT or its reply."""

import contextlib
import select
import socket
import threading
import time
from collections import deque
from typing import Literal

CommitFault = Literal["request lost", "reply lost"]

_COMMIT = b"COMMIT\x00"
_PIECE_BYTES = 65_536
_TICK_S = 0.05


class TcpProxy:
    """Passes bytes between clients and 127.0.0.1:`target_port`; its faults hold until `heal`.

    Every connection has a thread. What a silence swallowed stays lost, as in a network that drops packets, so
    a connection that met one never speaks again.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        self.commits_lost = 0
        self._refusing = False
        self._silent = False
        self._commit_faults: deque[CommitFault] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="tcp-proxy", daemon=True).start()

    # ── faults ────────────────────────────────────────────────────────────────────────────────────────

    def cut(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Cut, and hang up on whoever comes."""
        self._refusing = True
        self.cut()

    def fall_silent(self) -> None:
        """Swallow whatever is sent from now on; connections stay open."""
        self._silent = True

    def lose_commit(self, fault: CommitFault) -> None:
        """Let the next COMMIT, or the reply to it, get lost together with its connection."""
        self._commit_faults.append(fault)

    def heal(self) -> None:
        """End every fault; connections that met a silence stay dead, and are closed."""
        self.delay_s = 0.0
        self._commit_faults.clear()
        self._refusing = False
        if self._silent:
            self._silent = False
            self.cut()

    def close(self) -> None:
        """Stop for good."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # ── the way of the bytes ──────────────────────────────────────────────────────────────────────────

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._refusing:
                return
            with socket.create_connection(("127.0.0.1", self.target_port), timeout=10) as server:
                server.settimeout(None)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open |= {client, server}
                try:
                    self._pass_on(client, server)
                finally:
                    with self._lock:
                        self._open -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        dead, hang_up_after_reply = False, False
        while True:
            for ready in select.select([client, server], [], [], _TICK_S)[0]:
                piece = ready.recv(_PIECE_BYTES)
                if not piece:
                    return
                dead = dead or self._silent
                if dead:
                    continue
                if self.delay_s:
                    time.sleep(self.delay_s)
                if ready is client:
                    fault = self._fault_of(piece)
                    if fault == "request lost":
                        return
                    hang_up_after_reply = hang_up_after_reply or fault == "reply lost"
                    server.sendall(piece)
                elif hang_up_after_reply:
                    # The server has answered, so the commit is done; nobody on the other side learns of it.
                    return
                else:
                    client.sendall(piece)

    def _fault_of(self, piece: bytes) -> CommitFault | None:
        if _COMMIT not in piece:
            return None
        try:
            fault = self._commit_faults.popleft()
        except IndexError:
            return None
        self.commits_lost += 1
        return fault
