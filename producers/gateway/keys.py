"""Finds the sender by API key. All keys are cached, so that no request waits for the database.

    api_key ◀── every GATEWAY_KEYS_EVERY_S ── [background thread] ──▶ the keys in force ◀── Keys.caller

During an outage of the database the cached keys stay valid.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from processor.database.connection import Deadline, connect, require_all_rows
from processor.errors import ProcessorError
from processor.operations.reader import known_keys
from processor.wire.api_key import EXPECTED, read_key
from processor.wire.sender_rights import EVERYTHING, Rights
from producers.gateway.items import Caller, Refusal, Why

STALE_AFTER_S = 60.0
"""Older keys stay valid, and `ready` reports that they may be out of date."""

_READ_DEADLINE_S = 30.0
_NO_DIGEST = bytes(32)

_UNKNOWN = Refusal(Why.UNAUTHENTICATED, f"no such API key, or it was revoked; expected {EXPECTED}")
_NONE_GIVEN = Refusal(Why.UNAUTHENTICATED, f"an API key is needed: Authorization: Bearer {EXPECTED}")
_SUSPENDED = Refusal(Why.FORBIDDEN, "the tenant of this key is suspended")
_NOT_READ = Refusal(Why.UNAVAILABLE, "the API keys have not been read yet", retry_after_s=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    digest: bytes
    rounds: int
    suspended: bool


class DatabaseKeys:
    """The keys of the table `api_key`, at most `every_s` plus one read old. `start`, then `close` it."""

    def __init__(
        self,
        dsn: str,
        *,
        every_s: float,
        reserved: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = dsn
        self._every_s = every_s
        self._reserved = tuple(reserved)
        self._clock = clock
        self._known: Mapping[str, _Known] | None = None
        self._read_at = 0.0
        self._trouble = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None

    async def start(self) -> None:
        """Start reading the keys periodically. Does not wait for the first read."""
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop reading the keys."""
        self._stop.set()

    async def caller(self, authorization: str | None) -> Caller | Refusal:
        """Return the sender; a refusal if the key is unknown, or if no keys were read yet."""
        if authorization is None or not authorization.strip():
            return _NONE_GIVEN
        known = self._known
        if known is None:
            return _NOT_READ
        scheme, _, rest = authorization.strip().partition(" ")
        key = read_key(rest.strip() if scheme.lower() == "bearer" else authorization.strip())
        if key is None:
            return _UNKNOWN
        found = known.get(key.key_id)
        # Compared in constant time, even if there is no such key, so that timing reveals nothing.
        known_by = (found.rounds, found.digest) if found is not None else (1, _NO_DIGEST)
        same = hmac.compare_digest(key.digests[known_by[0] - 1], known_by[1])
        if found is None or not same:
            return _UNKNOWN
        if found.suspended:
            return _SUSPENDED
        return found.caller

    async def ready(self) -> str:
        """Describe why keys can't be checked, or may be out of date; empty if all is well."""
        if self._known is None:
            return f"the API keys have not been read yet{': ' if self._trouble else ''}{self._trouble}"
        age_s = self._clock() - self._read_at
        if age_s > STALE_AFTER_S + self._every_s:
            return (
                f"the API keys were read {age_s:.0f} s ago: {self._trouble or 'the database does not answer'}"
            )
        return ""

    # ── in the thread ─────────────────────────────────────────────────────────────────────────────────

    def _follow(self) -> None:
        deadline = Deadline(_READ_DEADLINE_S, stop=self._stop)
        while not self._stop.is_set():
            began_at = self._clock()
            trouble = self._read(deadline)
            if not trouble:
                # Their age counts from the query, not from its result.
                self._read_at = began_at
            self._tell(trouble)
            self._stop.wait(self._every_s)
        self._let_go()

    def _read(self, deadline: Deadline) -> str:
        """Read the keys once; return a description of the failure, if any."""
        try:
            if self._connection is None:
                self._connection = connect(self._dsn, application="event-gateway")
            with deadline.over(self._connection):
                require_all_rows(self._connection)
                rows, ground = known_keys(self._connection)
        except ProcessorError as error:
            self._let_go()
            return str(error)
        except psycopg.errors.UndefinedTable:
            return "the database has no table of keys; run: processor migrate"
        except psycopg.errors.UndefinedColumn:
            return "the database does not say yet what a key may send; run: processor migrate"
        except psycopg.errors.InsufficientPrivilege:
            return "the role of DATABASE_URL may not read keys; make it a member of processor_gateway"
        except psycopg.Error as error:
            self._let_go()
            return f"the database went away: {error.sqlstate or type(error).__name__}"
        self._known = {
            row["key_id"]: _Known(
                Caller(row["tenant_id"], rights=self._rights(row), ground=ground),
                bytes(row["digest"]),
                row["digest_rounds"],
                bool(row["suspended"]),
            )
            for row in rows
        }
        return ""

    def _rights(self, row: Mapping[str, Any]) -> Rights:
        return Rights.of(row, (*self._reserved, *(row["reserved"] or ())))

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.error("API keys can't be read: %s; those that are known go on to hold", trouble)
        elif self._trouble and not trouble:
            log.warning("API keys can be read again")
        self._trouble = trouble


class NoKeys:
    """Keys for a trusted network (GATEWAY_KEYS=off): a sender may name any tenant."""

    async def start(self) -> None:
        """Do nothing: there are no keys to read."""

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""

    async def caller(self, authorization: str | None) -> Caller | Refusal:  # noqa: ARG002 - not asked for
        """Accept every sender."""
        return Caller(None, rights=EVERYTHING)

    async def ready(self) -> str:
        """Return an empty text: nothing can fail."""
        return ""
