"""Quiet tenants beside a hostile one: each sends an event periodically, and records its response.

    due ─▶ send ─▶ yes │ refused, and sent again ─▶ COMMIT

A delay is counted from the due time of the event, so that a late response also counts for the events that it
delayed.
"""

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from processor.errors import ProcessorError
from processor.wire.manifest import ManifestLine, ManifestWriter, payload_digest
from producers.publishers import CallFailed, Publisher
from producers.publishers.outgoing import Outgoing

_AGAIN_S = 0.1
_PAYLOAD = json.dumps(
    {
        "user_id": "00000000-0000-0000-0000-000000000007",
        "email": "ada@example.org",
        "plan": "free",
        "signed_up_at": "2026-11-22T10:00:00Z",
    }
)


@dataclass(slots=True)
class Sent:
    """One event: when it was due and answered by a yes (Unix time), and the refusals before that."""

    message_id: str
    due_at: float
    answered_at: float | None = None
    refusals: list[str] = field(default_factory=list)


@dataclass
class Neighbour:
    """Sends `per_s` events a second to a door; without `keeps` on a connection of its own for each."""

    name: str
    tenant: str
    open_door: Callable[[], Publisher]
    per_s: float
    manifest: Path
    _: KW_ONLY
    keeps: bool
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._publisher = self.open_door() if self.keeps else None
        self._thread = threading.Thread(target=self._send, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Send no more; the last one is tried until it is taken, or so long."""
        self._stop.set()
        self._thread.join(wait_s)
        if self._publisher is not None and not self._thread.is_alive():
            self._publisher.close()

    def _send(self) -> None:
        began_at, number = time.time(), 0
        with ManifestWriter(self.manifest) as manifest:
            while True:
                due_at = began_at + number / self.per_s
                if self._stop.wait(max(0.0, due_at - time.time())):
                    return
                one = Sent(f"{self.name}-{number}", due_at)
                self.sent.append(one)
                self._offer(one, manifest)
                number += 1

    def _offer(self, one: Sent, manifest: ManifestWriter) -> None:
        event = {"tenant_id": self.tenant, "event_type": "user.signed_up", "id": one.message_id}
        body = f'{json.dumps(event)[:-1]}, "payload": {_PAYLOAD}}}'
        known = (self.tenant, one.message_id, payload_digest(_PAYLOAD))
        message = Outgoing(body, tenant_id=self.tenant, message_id=one.message_id, group=self.tenant)
        manifest.intend([ManifestLine("intended", *known)])
        while True:
            delivery_id = self._try(message, one)
            if delivery_id is not None:
                one.answered_at = time.time()
                manifest.accept([ManifestLine("accepted", *known, delivery_id)])
                return
            time.sleep(_AGAIN_S)

    def _try(self, message: Outgoing, one: Sent) -> str | None:
        publisher = self._publisher or self.open_door()
        try:
            answer = publisher.send({0: message})
        except (CallFailed, ProcessorError) as error:
            one.refusals.append(getattr(error, "code", None) or str(error))
            return None
        finally:
            if publisher is not self._publisher:
                publisher.close()
        one.refusals += [code for code, _ in (*answer.again.values(), *answer.refused.values())]
        return answer.accepted.get(0)


@dataclass(frozen=True, slots=True)
class Figures:
    """How one neighbour was served: seconds to the yes and to the commit, and how often it was refused."""

    events: int
    answered_p50_s: float
    answered_p99_s: float
    stored_p50_s: float
    stored_p99_s: float
    refusals: Counter[str]

    def text(self) -> str:
        """Give it as cells of a table, in milliseconds."""
        times = (self.answered_p50_s, self.answered_p99_s, self.stored_p50_s, self.stored_p99_s)
        said = ", ".join(f"{count} {code[:40]}" for code, count in self.refusals.most_common(3))
        return " | ".join([f"{self.events}", *(f"{1000 * each:,.0f}" for each in times), said])


def figures(sent: Sequence[Sent], stored_at: Mapping[str, float]) -> Figures:
    """Say how these were served; what is not stored counts as stored now."""
    now = time.time()
    answered = [(one.answered_at or now) - one.due_at for one in sent]
    stored = [stored_at.get(one.message_id, now) - one.due_at for one in sent]
    return Figures(
        len(sent),
        statistics.median(answered),
        _p99(answered),
        statistics.median(stored),
        _p99(stored),
        Counter(code for one in sent for code in one.refusals),
    )


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]
