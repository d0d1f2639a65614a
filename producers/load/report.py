"""The results of a load run, in bounded memory: counts, delay percentiles, and a line for each second."""

import math
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processor.errors import SettingsError

PERCENTS = (50.0, 95.0, 99.0, 99.9)
_TOLD_FROM_S = 1.0
"""The CPU time of a shorter run is not reported: most of it is start-up."""

_GROWTH = math.log(1.005)
"""Each bucket's bound is 0.5 % above the last, which is the error of a percentile."""
_BUCKETS = 4700
"""Up to four hours, in microseconds."""


class Delays:
    """A histogram of delays in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.max_s = 0.0
        self._buckets = array("Q", bytes(8 * _BUCKETS))

    def add(self, delay_s: float) -> None:
        """Count one delay."""
        self.count += 1
        self.max_s = max(self.max_s, delay_s)
        place = int(math.log(delay_s * 1e6) / _GROWTH) + 1 if delay_s > 1e-6 else 0  # noqa: PLR2004 - a microsecond
        self._buckets[min(place, _BUCKETS - 1)] += 1

    def percentile_s(self, percent: float) -> float:
        """Return the delay that so many percent don't exceed; 0 if there was none."""
        left = math.ceil(self.count * percent / 100)
        for place, count in enumerate(self._buckets):
            left -= count
            if left <= 0 < self.count:
                # The last bucket has no bound.
                return (
                    self.max_s if place == _BUCKETS - 1 else min(self.max_s, math.exp(place * _GROWTH) / 1e6)
                )
        return self.max_s

    def as_json(self) -> dict[str, float]:
        """Return the percentiles in milliseconds."""
        found = {f"p{percent:g}": round(self.percentile_s(percent) * 1000, 3) for percent in PERCENTS}
        return found | {"max": round(self.max_s * 1000, 3)}


@dataclass(slots=True)
class Second:
    """The pulses that ended within one second of the run."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    slowest_s: float = 0.0


@dataclass(slots=True)
class LoadTally:
    """The counts of one run.

    Of all due pulses, some were sent; each sent pulse ends as accepted, refused or failed (no response: it
    may have arrived). `delays` are those of accepted pulses, counted from their due times.
    """

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    unsent: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    delays: Delays = field(default_factory=Delays)
    other_delays: Delays = field(default_factory=Delays)
    lateness: Delays = field(default_factory=Delays)
    seconds: list[Second] = field(default_factory=list)
    started_at_s: float = field(default_factory=time.monotonic)
    cpu_started_s: float = field(default_factory=time.process_time)
    last_s: float = 0.0

    def duration_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started_at_s

    def accept(self, due_s: float, now_s: float) -> None:
        """Count an accepted pulse."""
        self.accepted += 1
        self.delays.add(now_s - due_s)
        second = self._second(now_s)
        second.accepted += 1
        second.slowest_s = max(second.slowest_s, now_s - due_s)

    def refuse(self, code: str, due_s: float, now_s: float) -> None:
        """Count a refused pulse."""
        self.refused += 1
        self.refusals[code] += 1
        self.other_delays.add(now_s - due_s)
        self._second(now_s).refused += 1

    def fail(self, why: str, due_s: float, now_s: float) -> None:
        """Count a pulse without a response."""
        self.failed += 1
        self.failures[why] += 1
        self.other_delays.add(now_s - due_s)
        self._second(now_s).failed += 1

    def _second(self, now_s: float) -> Second:
        self.last_s = max(self.last_s, now_s)
        while len(self.seconds) <= int(now_s):
            self.seconds.append(Second())
        return self.seconds[int(now_s)]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object; delays in milliseconds."""
        cpu_s = time.process_time() - self.cpu_started_s
        return {
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": self.refused,
            "refusals": dict(self.refusals),
            "failed": self.failed,
            "failures": dict(self.failures),
            "unsent": self.unsent,
            "retries": dict(self.retries),
            "duration_s": round(self.last_s, 3),
            "accepted_per_s": round(self.accepted / max(self.last_s, 0.001), 1),
            "delay_ms": self.delays.as_json(),
            "delay_of_others_ms": self.other_delays.as_json(),
            "sent_late_ms": self.lateness.as_json(),
            "cpu_s": round(cpu_s, 3),
            "cpu_us_per_request": round(cpu_s / max(self.sent, 1) * 1e6, 1),
        }

    def as_text(self) -> str:
        """Return the report as text."""
        said = self.as_json()
        lines = [
            (
                f"sent {self.sent:,}: accepted {self.accepted:,}, refused {self.refused:,}, no answer "
                f"{self.failed:,}; {self.last_s:.1f} s, {said['accepted_per_s']:,.0f} accepted/s"
            ),
            _delays("accepted, from when each was due", self.delays),
        ]
        if self.other_delays.count:
            lines.append(_delays("the others, likewise", self.other_delays))
        lines.append(_delays("sent after it was due", self.lateness))
        lines += [f"refused {count:,} x {code}" for code, count in self.refusals.most_common()]
        lines += [f"no answer {count:,} x {why}" for why, count in self.failures.most_common()]
        lines += [f"sent again {count:,} x after {why}" for why, count in self.retries.most_common()]
        if self.unsent:
            lines.append(f"{self.unsent:,} were due and never sent: too few connections, or too slow answers")
        if self.last_s >= _TOLD_FROM_S:
            share = said["cpu_s"] / self.last_s
            lines.append(
                f"this producer used {share:.0%} of a core, {said['cpu_us_per_request']:.0f} us a request"
            )
        return "\n".join(lines)


def _delays(name: str, delays: Delays) -> str:
    figures = ", ".join(f"{percent} {value:.1f}" for percent, value in delays.as_json().items())
    return f"{name}, in ms: {figures}"


def draw(tally: LoadTally, path: Path) -> None:
    """Plot the run by second, and the delays by percentile; the file's extension gives the format.

    Raises SettingsError if matplotlib is missing, or the file can't be written.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - of the extra `load`, and slow to import
    except ImportError:
        raise SettingsError(
            "no plot: matplotlib is not installed; run: pip install 'sqs-event-processor[load]'"
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (speed, slowest, delays) = plt.subplots(3, 1, figsize=(9, 9))
    seconds = range(len(tally.seconds))
    speed.stackplot(
        seconds,
        [one.accepted for one in tally.seconds],
        [one.refused for one in tally.seconds],
        [one.failed for one in tally.seconds],
        labels=("accepted", "refused", "without an answer"),
        colors=("#1b6ca8", "#e0a030", "#c0392b"),
    )
    speed.set(xlabel="second", ylabel="pulses")
    speed.legend(loc="lower right")
    slowest.plot(seconds, [one.slowest_s * 1000 for one in tally.seconds], color="#1b6ca8")
    slowest.set(xlabel="second", ylabel="slowest accepted, ms", ylim=(0, None))
    percents = [100 - 100 / 10 ** (step / 20) for step in range(81)]
    delays.plot(
        [100 / (100 - percent) for percent in percents], [_ms(tally, percent) for percent in percents]
    )
    delays.set_xscale("log")
    delays.set_xticks([1, 2, 10, 100, 1000, 10_000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    delays.set(xlabel="of the accepted took at most", ylabel="ms since due", ylim=(0, None))
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"no plot in {path}: {error}; expected a name that ends in .svg or .png"
        ) from None
    finally:
        plt.close(figure)


def _ms(tally: LoadTally, percent: float) -> float:
    return tally.delays.percentile_s(percent) * 1000
