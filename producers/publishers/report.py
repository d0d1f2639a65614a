"""Counts the results of the messages, shows progress, and prints the report."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from producers.fake.faults import FAULT_KINDS
from producers.publishers.lines import BadLine
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import AcceptedMessage, Receipt

EXAMPLES_MAX = 20
PROGRESS_EVERY_S = 5.0

MEANT = frozenset({"malformed", "invalid"})
"""The codes of a gateway for a faulty event, as opposed to rate limits, outages or authentication."""


@dataclass(slots=True)
class Refusals:
    """The count of one code, with the reason of its first occurrence."""

    reason: str
    first: str
    count: int = 0


@dataclass(slots=True)
class SendTally:
    """The counts of one run. `kinds` and `without_id` count accepted messages only.

    `without_id` leaves out deliberately invalid messages, whose kind is not `event`. `refused_as_meant`
    counts deliberately invalid messages that were refused for their fault.
    """

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    refused_as_meant: int = 0
    without_id: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, Refusals] = field(default_factory=dict)
    bad_lines: int = 0
    bad_line_examples: list[BadLine] = field(default_factory=list)
    started_at_s: float = field(default_factory=time.monotonic)

    def taken(self, messages: Iterable[Outgoing]) -> Iterator[Outgoing]:
        """Yield the messages, and count those that were taken."""
        for message in messages:
            self.sent += 1
            yield message

    def count(self, receipt: Receipt) -> None:
        """Count one receipt."""
        message = receipt.message
        if isinstance(receipt, AcceptedMessage):
            self.accepted += 1
            self.kinds[message.kind] += 1
            self.without_id += message.message_id is None and message.kind == "event"
            return
        self.refused += 1
        self.refused_as_meant += message.kind in FAULT_KINDS and receipt.code in MEANT
        seen = self.refusals.setdefault(receipt.code, Refusals(receipt.reason, message.label))
        seen.count += 1

    def count_bad_line(self, line: BadLine) -> None:
        """Count a line that was not sent; the first few are kept for the report."""
        self.bad_lines += 1
        if len(self.bad_line_examples) < EXAMPLES_MAX:
            self.bad_line_examples.append(line)

    def unanswered(self) -> int:
        """Return the number of messages that may or may not be on the queue, since they got no result."""
        return self.sent - self.accepted - self.refused

    def duration_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started_at_s

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        duration_s = self.duration_s()
        return {
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": self.refused,
            "refused_as_meant": self.refused_as_meant,
            "unanswered": self.unanswered(),
            "without_id": self.without_id,
            "kinds": dict(sorted(self.kinds.items())),
            "refusals": [
                {"code": code, "reason": seen.reason, "first": seen.first, "count": seen.count}
                for code, seen in self.refusals.items()
            ],
            "bad_lines": self.bad_lines,
            "bad_line_examples": [{"line": line.number, "why": line.why} for line in self.bad_line_examples],
            "duration_s": round(duration_s, 3),
            "accepted_per_s": round(self.accepted / max(duration_s, 0.001), 1),
        }

    def as_text(self) -> str:
        """Return the report as text."""
        duration_s = self.duration_s()
        speed = self.accepted / max(duration_s, 0.001)
        lines = [
            f"sent {self.sent:,}: accepted {self.accepted:,}, refused {self.refused:,}"
            + (f", without an answer {self.unanswered():,}" if self.unanswered() else "")
            + f"; {duration_s:.1f} s, {speed:,.0f}/s"
        ]
        lines += [f"  {kind:<22} {count:>9,}" for kind, count in self.kinds.most_common() if kind != "event"]
        lines += [
            f"refused {seen.count:,} x {code}: {seen.reason} (first: {seen.first})"
            for code, seen in self.refusals.items()
        ]
        if self.refused_as_meant:
            lines.append(f"{self.refused_as_meant:,} of the refused were invalid on purpose (no failure)")
        lines += [f"not sent, line {line.number}: {line.why}" for line in self.bad_line_examples]
        if self.bad_lines > len(self.bad_line_examples):
            lines.append(f"not sent, {self.bad_lines - len(self.bad_line_examples):,} more lines")
        if self.without_id:
            lines.append(
                f"{self.without_id:,} without an id of their own: the processor takes SQS's id instead, so "
                "sending them again stores them again"
            )
        return "\n".join(lines)


class Growing(Protocol):
    """Counts that `Display` can show."""

    @property
    def accepted(self) -> int:
        """The number of accepted messages so far."""

    @property
    def refused(self) -> int:
        """The number of other messages."""

    def duration_s(self) -> float:
        """Return the seconds since the start."""


class Display:
    """Shows progress: a bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, tally: Growing, total: int | None, stream: TextIO) -> None:
        self._tally = tally
        self._stream = stream
        self._next_s = PROGRESS_EVERY_S
        self._bar: Progress | None = None
        if stream.isatty():
            self._bar = Progress(
                TextColumn("sending"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[refused]}"),
                TimeElapsedColumn(),
                console=Console(file=stream),
                transient=True,
            )
            self._task = self._bar.add_task("sending", total=total, refused="")

    def show(self) -> None:
        """Update the display if it is due."""
        tally = self._tally
        if self._bar is not None:
            refused = f"{tally.refused:,} refused" if tally.refused else ""
            self._bar.update(self._task, completed=tally.accepted + tally.refused, refused=refused)
        elif (duration_s := tally.duration_s()) >= self._next_s:
            self._next_s = duration_s + PROGRESS_EVERY_S
            speed = tally.accepted / duration_s
            self._stream.write(f"accepted {tally.accepted:,}, refused {tally.refused:,}; {speed:,.0f}/s\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
