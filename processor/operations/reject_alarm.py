"""The reject alarm: a large share of one tenant's events of one type is rejected.

    committed batches ─▶ note: counts by pair, in a window that slides ─▶ look: begins, goes on, or ends
                                                                           └─▶ a gauge, and one log line each

Processing continues: rejections are kept whole and can be replayed, so the alarm only informs. A pair is a
tenant and an event type, as far as they are registered; unregistered names share one pair.
"""

import shlex
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from processor.errors import Reason
from processor.model import Message, Outcome, Rejection, Settlement, Verdict
from processor.runtime import metrics

log = structlog.get_logger(__name__)

Pair: TypeAlias = tuple[str | None, str | None]
"""Tenant and event type. (tenant, None): its event types that are not registered. (None, None): the rest."""

NOT_COUNTED = (Reason.TENANT_SUSPENDED, Reason.DEAD_LETTERED)
"""Rejections that an operator caused: by suspending the tenant, or by an import."""

_STORED = Outcome.STORED
_OTHERWISE: Pair = ("", "")
"""The placeholder for messages that were not stored by their first verdict; no tenant id is empty."""

_STEPS = 10
"""The number of steps of the sliding window."""

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class RejectAlarmLimits:
    """The share that begins an alarm, the least number of deliveries, and the window in seconds."""

    share: float
    count_min: int
    window_s: float

    def begins(self, rejected: int, deliveries: int) -> bool:
        """Tell whether an alarm begins. `deliveries` counts stored and rejected ones."""
        return deliveries >= self.count_min and rejected >= self.share * deliveries

    def goes_on(self, rejected: int, deliveries: int) -> bool:
        """Tell whether an alarm goes on: down to half of the share that begins it (hysteresis)."""
        return 2 * deliveries >= self.count_min and 2 * rejected >= self.share * deliveries


def replay_command(pair: Pair) -> str:
    """Return the replay command for a pair; unregistered names get a list command instead."""
    tenant_id, event_type = pair
    if tenant_id is None:
        return "processor rejection stats"
    words = ["processor", "rejection", "replay", "--tenant", tenant_id]
    return shlex.join(words if event_type is None else [*words, "--event-type", event_type])


def words(pair: Pair, rejected: int, deliveries: int, window_s: float) -> str:
    """Describe an alarm in one line, with the command to run after the fix."""
    tenant_id, event_type = pair
    whose = (
        "what names no registered tenant"
        if tenant_id is None
        else f"tenant {tenant_id!r}, event type {event_type!r}"
        if event_type is not None
        else f"tenant {tenant_id!r}, event types that are not registered"
    )
    return (
        f"alarm: {whose}: {rejected} of {deliveries} deliveries of the last {window_s:.0f} s were rejected "
        f"({rejected / deliveries:.0%}); once mended: {replay_command(pair)}"
    )


@dataclass(frozen=True, slots=True)
class _WindowStep:
    """One step of the window: the counts from its start on."""

    began_at: float
    stored: Counter[Pair]
    rejected: Counter[Pair]


class RejectAlarm:
    """Watches the outcomes of one process. Safe to share between threads.

    `registered` returns the registered part of a tenant and an event type. Memory is bounded by the
    registered pairs with outcomes within the window.
    """

    def __init__(
        self,
        limits: RejectAlarmLimits,
        registered: Callable[[str | None, str | None], Pair],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._registered = registered
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: deque[_WindowStep] = deque()
        self._alarms: set[Pair] = set()
        self._look_at = 0.0

    def note(self, verdicts: Sequence[Verdict], settlements: Sequence[Settlement]) -> None:
        """Count a batch after its commit, one settlement for each verdict in order.

        Duplicates and redeliveries are not counted, as in the tables.
        """
        pairs = [
            (verdict.tenant_id, verdict.event_type)
            if settlement.outcome is _STORED and verdict.__class__ is Message
            else _OTHERWISE
            for verdict, settlement in zip(verdicts, settlements, strict=True)
        ]
        with self._lock:
            now = self._clock()
            step = self._step(now)
            # The cost per message is a fifth of a microsecond; only the others are examined one by one.
            step.stored.update(pairs)
            if step.stored.pop(_OTHERWISE, 0):
                for position, pair in enumerate(pairs):
                    if pair is _OTHERWISE:
                        self._note_other(step, verdicts[position], settlements[position])
            if now >= self._look_at:
                self._look(now)

    def look(self) -> None:
        """Advance the window, and begin or end alarms, also without traffic."""
        with self._lock:
            self._look(self._clock())

    def _note_other(self, step: _WindowStep, verdict: Verdict, settlement: Settlement) -> None:
        if settlement.discarded or settlement.reason in NOT_COUNTED:
            return
        if settlement.outcome is Outcome.REJECTED:
            step.rejected[self._pair(verdict)] += 1
        elif settlement.outcome is _STORED:
            # Validated again with a newer registry.
            step.stored[self._pair(verdict)] += 1

    def _pair(self, verdict: Verdict) -> Pair:
        claimed = verdict.claimed if isinstance(verdict, Rejection) else verdict
        return self._registered(claimed.tenant_id, claimed.event_type)

    def _step(self, now: float) -> _WindowStep:
        if not self._steps or now - self._steps[-1].began_at >= self._limits.window_s / _STEPS:
            self._steps.append(_WindowStep(now, Counter(), Counter()))
        return self._steps[-1]

    def _look(self, now: float) -> None:
        self._look_at = now + _LOOK_EVERY_S
        while self._steps and now - self._steps[0].began_at >= self._limits.window_s:
            self._steps.popleft()
        rejected: Counter[Pair] = Counter()
        for step in self._steps:
            rejected.update(step.rejected)
        for pair in sorted(rejected.keys() | self._alarms, key=str):
            # No sums for pairs without rejections.
            deliveries = rejected[pair] + sum(step.stored[pair] for step in self._steps)
            self._judge(pair, rejected[pair], deliveries)
        metrics.reject_alarms.set(len(self._alarms))

    def _judge(self, pair: Pair, rejected: int, deliveries: int) -> None:
        if pair in self._alarms:
            if not self._limits.goes_on(rejected, deliveries):
                self._alarms.discard(pair)
                log.info("reject_alarm_over", **self._figures(pair, rejected, deliveries))
        elif self._limits.begins(rejected, deliveries):
            self._alarms.add(pair)
            log.warning(
                "reject_alarm", **self._figures(pair, rejected, deliveries), once_mended=replay_command(pair)
            )

    def _figures(self, pair: Pair, rejected: int, deliveries: int) -> Mapping[str, str | int | float | None]:
        # Registered names only: a sender must not control the log.
        tenant_id, event_type = pair
        return {
            "tenant_id": tenant_id,
            "event_type": event_type,
            "rejected": rejected,
            "deliveries": deliveries,
            "window_s": self._limits.window_s,
        }
