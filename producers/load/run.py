"""Simulates thousands of tenants that send pulses over HTTP, and measures the delay of each pulse.

    Timetable ─▶ due ─▶ a free connection ─▶ POST ─▶ answer ─▶ LoadTally
                  ▲                                    │
                  └──── next pulse of the tenant ◀─────┘ (unless the rate is constant)

Delays are counted from the due time in the timetable, not from the sending of the request: if the server
stalls, the waiting time of later pulses counts as well (no coordinated omission).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import orjson

from processor.errors import SourceUnavailable
from processor.wire.manifest import ManifestLine, ManifestWriter
from producers.load.client import Connection, Reply, Target
from producers.load.pulses import LoadPlan, LoadPulse, timetable
from producers.load.report import LoadTally

TICK_S = 0.001
"""The period of the check for due pulses. A pulse is late by up to this time, and its delay includes it."""
SWEEP_S = 0.1
SHOW_S = 0.2
RETRIES_WAITING_MAX = 10_000
RETRY_PAUSE_S = 0.2
"""The backoff before the first retry, doubled for each further one."""

_OK, _MULTIPLE, _TIMEOUT, _TOO_MANY, _SERVER = 200, 300, 408, 429, 500


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How the load is sent: the maximum of connections, the response timeout, the number of retries."""

    connections: int = 128
    timeout_s: float = 10.0
    retries: int = 0


class Load:
    """One run. `stop` ends it early; pending requests may still be answered."""

    def __init__(
        self, target: Target, plan: LoadPlan, effort: LoadOptions, manifest: ManifestWriter | None = None
    ) -> None:
        self.tally = LoadTally()
        self._target = target
        self._effort = effort
        self._manifest = manifest
        self._timetable = timetable(plan)
        self._retries: list[tuple[float, int, LoadPulse]] = []
        self._free: deque[Connection] = deque()
        self._asked: dict[Connection, tuple[LoadPulse, float]] = {}
        self._connecting: dict[asyncio.Task[Connection], LoadPulse] = {}
        self._accepted: list[ManifestLine] = []
        self._stopped = False
        self._begun_at_s = 0.0
        self._until_s = plan.duration_s

    def stop(self) -> None:
        """Send no further pulses."""
        self._stopped = True

    async def run(self, show: Callable[[], None] = lambda: None) -> None:
        """Send all pulses, and wait for the last responses. `show` is called periodically.

        Raises SourceUnavailable before the first pulse if the server can't be reached, and SettingsError if
        the manifest can't be written.
        """
        try:
            self._free.append(await asyncio.wait_for(self._target.connect(self), self._effort.timeout_s))
        except (OSError, TimeoutError) as error:
            raise SourceUnavailable(
                f"{self._target.name} can't be reached: {type(error).__name__}; see --url"
            ) from error
        self._begun_at_s = self.tally.started_at_s = time.monotonic()
        self.tally.cpu_started_s = time.process_time()
        sweep_at_s = show_at_s = 0.0
        while not self._over():
            self._pump()
            self._note_accepted()
            now_s = self._now_s()
            if now_s >= sweep_at_s:
                self._sweep()
                sweep_at_s = now_s + SWEEP_S
            if now_s >= show_at_s:
                show()
                show_at_s = now_s + SHOW_S
            # Always wait for the clock, never for a response: the timetable alone decides what is due.
            await asyncio.sleep(TICK_S)
        self._close()

    def _over(self) -> bool:
        """Tell whether all pulses have ended, or the timeout of the last responses is over."""
        now_s = self._now_s()
        if self._stopped:
            self._until_s = min(self._until_s, now_s)
        if now_s < self._until_s:
            return False
        waiting = self._asked or self._connecting or self._retries
        due = not self._stopped and self._timetable.next_s() is not None
        return not (waiting or due) or now_s > self._until_s + self._effort.timeout_s

    def _close(self) -> None:
        for connection in list(self._asked):
            connection.abort("no answer until the end")
        for task, pulse in list(self._connecting.items()):
            task.cancel()
            self._end_failed(pulse, "no connection until the end")
        self._connecting.clear()
        while self._retries:
            self._end_failed(heappop(self._retries)[2], "no answer until the end")
        for connection in list(self._free):
            connection.abort("the end")
        if not self._stopped:
            self.tally.unsent = self._left()
        self._note_accepted()

    def _left(self) -> int:
        count = 0
        while self._timetable.next_s() is not None:
            self._timetable.take()
            count += 1
        return count

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        """Send the due pulses, as far as there are free connections."""
        pulses: list[LoadPulse] = []
        while self._room() > len(pulses) and (pulse := self._next_due()) is not None:
            pulses.append(pulse)
        if pulses:
            if self._manifest is not None:
                # Before the send, so that every pulse that arrives is in the file.
                self._manifest.intend([_line(pulse) for pulse in pulses if not pulse.tries])
            for pulse in pulses:
                self._send(pulse)

    def _room(self) -> int:
        in_use = len(self._asked) + len(self._connecting) + len(self._free)
        return len(self._free) + self._effort.connections - in_use

    def _next_due(self) -> LoadPulse | None:
        now_s = self._now_s()
        if self._retries and self._retries[0][0] <= now_s:
            return heappop(self._retries)[2]
        due_s = None if self._stopped else self._timetable.next_s()
        if due_s is None or due_s > now_s:
            return None
        self.tally.sent += 1
        self.tally.lateness.add(now_s - due_s)
        return self._timetable.take()

    def _send(self, pulse: LoadPulse) -> None:
        if self._free:
            self._ask(self._free.pop(), pulse)
            return
        task = asyncio.create_task(
            asyncio.wait_for(self._target.connect(self), self._effort.timeout_s), name=pulse.message_id
        )
        self._connecting[task] = pulse
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[Connection]) -> None:
        pulse = self._connecting.pop(task, None)
        if pulse is None or task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._ask(task.result(), pulse)
        elif isinstance(error, OSError | TimeoutError):
            self._missed(pulse, type(error).__name__)
        else:
            raise error

    def _ask(self, connection: Connection, pulse: LoadPulse) -> None:
        self._asked[connection] = (pulse, self._now_s() + self._effort.timeout_s)
        connection.ask(pulse.message_id, pulse.body)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, connection: Connection, reply: Reply) -> None:
        """Count a response, and use the connection for the next due pulse."""
        pulse, _ = self._asked.pop(connection)
        if not connection.closed:
            self._free.append(connection)
        if _OK <= reply.status < _MULTIPLE:
            self.tally.accept(pulse.due_s, self._now_s())
            self._note(pulse, reply)
            self._timetable.done(pulse)
            return
        code = _code(reply)
        if not (_passes(reply.status) and self._again(pulse, code, reply.wait_s)):
            self.tally.refuse(code, pulse.due_s, self._now_s())
            self._timetable.done(pulse)

    def lost(self, connection: Connection, why: str) -> None:
        """Count the pulse without a response on a lost connection."""
        if connection in self._asked:
            pulse, _ = self._asked.pop(connection)
            self._missed(pulse, why)
        elif connection in self._free:
            self._free.remove(connection)

    def _again(self, pulse: LoadPulse, why: str, wait_s: float) -> bool:
        """Retry with the same id, if retries are enabled; every retry is counted."""
        full = len(self._retries) >= RETRIES_WAITING_MAX
        if pulse.tries >= self._effort.retries or full or self._stopped:
            return False
        self.tally.retries[why] += 1
        at_s = self._now_s() + max(wait_s, RETRY_PAUSE_S * 2**pulse.tries)
        pulse.tries += 1
        heappush(self._retries, (at_s, id(pulse), pulse))
        return True

    def _missed(self, pulse: LoadPulse, why: str) -> None:
        if not self._again(pulse, why, 0.0):
            self._end_failed(pulse, why)

    def _end_failed(self, pulse: LoadPulse, why: str) -> None:
        self.tally.fail(why, pulse.due_s, self._now_s())
        self._timetable.done(pulse)

    def _sweep(self) -> None:
        """Abandon requests that have timed out."""
        now_s = self._now_s()
        for connection in [one for one, (_, until_s) in self._asked.items() if until_s < now_s]:
            connection.abort("timeout")

    def _note(self, pulse: LoadPulse, reply: Reply) -> None:
        if self._manifest is not None and (delivery_id := _said(reply).get("delivery_id")):
            self._accepted.append(_line(pulse, str(delivery_id)))

    def _note_accepted(self) -> None:
        if self._manifest is not None and self._accepted:
            self._manifest.accept(self._accepted)
            self._accepted = []

    def _now_s(self) -> float:
        return time.monotonic() - self._begun_at_s


def _code(reply: Reply) -> str:
    """Name a refusal: the status, and the code of a problem (RFC 9457) if there is one."""
    return f"{reply.status} {_said(reply).get('code', '')}".rstrip()


def _said(reply: Reply) -> dict[str, Any]:
    try:
        said = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _passes(status: int) -> bool:
    return status in (_TIMEOUT, _TOO_MANY) or status >= _SERVER


def _line(pulse: LoadPulse, delivery_id: str | None = None) -> ManifestLine:
    state: Any = "intended" if delivery_id is None else "accepted"
    return ManifestLine(state, pulse.tenant_id, pulse.message_id, pulse.digest(), delivery_id)
