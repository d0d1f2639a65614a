"""The audit: the tables by themselves, and message by message against the producers' manifests.

    accepted by the queue = message + duplicate + rejection (open or discarded)
                            + still queued (visible, in flight, delayed, or in its dead-letter queue)
                            + removed by retention (counted in the table removal)

Removed rows are known only as counts by tenant, outcome and day. So with manifests, as many missing
deliveries of a tenant are explained as were removed of it, and only the rest is lost. The report has the
number of explained but unproven deliveries.

There are four problems. lost: accepted, but in no table or queue. unexpected: stored, but never sent. twice:
a delivery in two tables, or a message in more rows than it was sent. altered: stored with another payload.

    count the manifests' lines ─▶ ask the queue ─▶ take a snapshot of the tables ─▶ read the manifests

The order makes the proof valid beside producers and processors. A message accepted before the lines were
counted is still queued when the queue is queried, or is committed and so in the snapshot: a message that
moves from one to the other is seen at least once. A message in the snapshot was written to the manifest
before, and so is read.
"""

import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import SettingsError
from processor.wire.manifest import ManifestLine, payload_digest, read_manifest

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

LISTED_MAX = 20
"""The most ids printed per problem; JSON has the first thousand."""

LOOK_AGAIN_AFTER_S = 5.0
"""The queue's counts are approximate, so they are queried once more before a loss is reported."""

_KEPT_MAX = 1000
_PAGE = 2000
_CHUNK_BYTES = 1024 * 1024

_ENDS = ("message", "duplicate", "rejection_discarded")
"""The outcomes that were a delivery's only row; a replayed rejection has a successor."""

_MEANINGS = {
    "lost": "accepted by the queue, and in no table",
    "unexpected": "stored, and named in no manifest, of tenants and producers that manifests speak of; "
    "name the manifests of other runs, too: --manifest A --manifest B",
    "twice": "one delivery in two tables, or one message in more rows than it was sent",
    "altered": "stored with another payload than was sent",
    "duplicates_of_nothing": "noted as duplicate of a message that is not there",
    "replayed_to_nothing": "closed as replayed, and in no other table",
}


@dataclass(slots=True)
class AuditReport:
    """The report of the audit.

    `outcomes` counts rows, and `removed` the rows that retention removed; `queued` counts the queue's
    messages by state, None if it was not queried; `accepted` counts the manifests' deliveries by place, None
    without a manifest, and `others` the messages of tenants and producers that no manifest has. `problems`
    maps each problem to its count, `examples` to its first rows.
    """

    outcomes: dict[str, int]
    removed: dict[str, int]
    queued: dict[str, int] | None
    accepted: dict[str, int] | None = None
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Row]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    others: int | None = None

    @property
    def unproven(self) -> int:
        """The number of missing deliveries that count as removed by retention, without proof."""
        if not self.accepted:
            return 0
        missing = self.accepted["missing"]
        return missing - min(missing, sum((self.queued or {}).values())) - self.problems["lost"]

    @property
    def holds(self) -> bool:
        """Whether there is no problem."""
        return not any(self.problems.values())

    def note(self, problem: str, rows: Sequence[Row], count: int) -> None:
        """Add `count` findings of one problem; `rows` are the first of them."""
        self.problems[problem] = self.problems.get(problem, 0) + count
        examples = self.examples.setdefault(problem, [])
        examples.extend(rows[: _KEPT_MAX - len(examples)])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "holds": self.holds,
            "outcomes": self.outcomes,
            "removed": self.removed,
            "queued": self.queued,
            "accepted": self.accepted,
            "unproven": self.unproven,
            "others": self.others,
            "problems": self.problems,
            "examples": {problem: rows for problem, rows in self.examples.items() if rows},
            "torn_manifests": self.torn,
        }

    def text(self) -> str:
        """Format the report for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        queued = None if self.queued is None else sum(self.queued.values())
        yield from self._equation(queued)
        for path in self.torn:
            yield f"note: the last line of {path} is torn (its producer was killed); it was left out"
        yield ""
        for problem, count in self.problems.items():
            yield f"{'ok' if not count else '!!'}  {problem:22} {count:>9}   {_MEANINGS[problem]}"
            for row in self.examples.get(problem, [])[:LISTED_MAX]:
                yield "      " + "  ".join(f"{name}={value}" for name, value in row.items())
            if count > LISTED_MAX:
                yield f"      ... and {count - LISTED_MAX} more"
        yield ""
        verdict = "the audit holds" if self.holds else "THE AUDIT DOES NOT HOLD"
        not_proven = f"; not proven for {self.unproven}: as many were removed, and a loss would look the same"
        yield verdict + not_proven * bool(self.unproven)

    def _equation(self, queued: int | None) -> Iterator[str]:
        where = self.accepted or self.outcomes
        gone = sum(self.removed[outcome] for outcome in _ENDS)
        rejected = (
            where["rejection"]
            if self.accepted
            else self.outcomes["rejection_open"] + self.outcomes["rejection_discarded"]
        )
        if self.accepted:
            yield f"accepted by the queue   {where['accepted']:>9}   (deliveries that the manifest names)"
        else:
            yield "rows in the tables"
        yield f"  = message             {where['message']:>9}"
        yield f"  + duplicate           {where['duplicate']:>9}"
        yield f"  + rejection           {rejected:>9}   (open or discarded)"
        if self.accepted:
            still = min(where["missing"], queued or 0)
            lost = self.problems["lost"]
            counted = "?" if queued is None else queued
            yield f"  + still queued        {still:>9}   (the queue counts {counted})"
            if gone:
                words = f"(of {gone} that retention removed; which they were, nobody can tell)"
                yield f"  + removed             {self.unproven:>9}   {words}"
            yield f"  + lost                {lost:>9}"
            others = (
                self.outcomes["message"]
                + self.outcomes["duplicate"]
                + self.outcomes["rejection_open"]
                + self.outcomes["rejection_discarded"]
                - where["message"]
                - where["duplicate"]
                - where["rejection"]
            )
            yield f"rows besides            {others:>9}   (sends whose answer was lost, or other producers)"
            if self.others:
                words = "messages of tenants or producers that no manifest speaks of; no error"
                yield f"  other producers'      {self.others:>9}   ({words})"
        else:
            if gone:
                each = ", ".join(f"{name.replace('_', ' ')} {self.removed[name]}" for name in _ENDS)
                yield f"  + removed             {gone:>9}   (by retention: {each})"
            states = "unknown: set SQS_QUEUE_URL" if self.queued is None else _states(self.queued)
            yield f"still queued            {'?' if queued is None else queued:>9}   ({states})"


def audit(
    connection: Connection,
    manifests: Sequence[Path],
    queue_depth: Callable[[], Mapping[str, int]] | None,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> AuditReport:
    """Audit the tables and the manifests' messages, beside running processors and producers.

    If more messages are missing than the queue has, everything is queried once more after `wait`. Raises
    SettingsError for a manifest that is unreadable or no regular file, SourceUnavailable.
    """
    report = _look(connection, manifests, queue_depth)
    if report.problems.get("lost") and queue_depth is not None:
        wait(LOOK_AGAIN_AFTER_S)
        report = _look(connection, manifests, queue_depth)
    return report


def _look(
    connection: Connection, manifests: Sequence[Path], queue_depth: Callable[[], Mapping[str, int]] | None
) -> AuditReport:
    # Messages accepted from here on may reach the queue after its count, so they can't be called missing.
    known = [(path, _line_count(path)) for path in manifests]
    # Before the snapshot: otherwise a delivery committed and deleted in between would be in neither.
    queued = None if queue_depth is None else dict(queue_depth())
    # One snapshot for all queries: a running processor changes nothing between two of them.
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # The first query takes the snapshot, so the manifests are read after it.
        report = AuditReport(
            outcomes=_row(connection, "outcomes"), removed=_row(connection, "removed"), queued=queued
        )
        _note(connection, report, "twice", "in_two_tables")
        _note(connection, report, "duplicates_of_nothing", "duplicates_of_nothing")
        _note(connection, report, "replayed_to_nothing", "replayed_to_nothing")
        if manifests:
            report.torn = _load_lines(connection, known)
            _load_digests(connection)
            _compare(connection, report)
    return report


def _compare(connection: Connection, report: AuditReport) -> None:
    connection.execute(queries("audit")["place_deliveries"])
    report.accepted = _row(connection, "accepted")
    lost = max(0, _row(connection, "unexplained")["unexplained"] - sum((report.queued or {}).values()))
    # With queued or removed messages, the individual lost ones can't be named.
    report.note("lost", _found(connection, "missing")[0] if lost else [], lost)
    connection.execute(queries("audit")["find_unnamed"])
    _note(connection, report, "unexpected", "unexpected")
    report.others = _row(connection, "of_others")["messages"]
    _note(connection, report, "twice", "stored_twice")
    _note(connection, report, "twice", "stored_and_rejected")
    _note(connection, report, "altered", "altered")
    order = list(_MEANINGS)
    report.problems = dict(sorted(report.problems.items(), key=lambda item: order.index(item[0])))


def _line_count(path: Path) -> int:
    """Count a manifest's lines, an incomplete last line too: its message was accepted before."""
    count, last = 0, b"\n"
    try:
        # A pipe can be read only once, so its lines can't be counted first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"the manifest {path} is no regular file; write it to one, and name that")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                count += chunk.count(b"\n")
                last = chunk[-1:]
    except OSError as error:
        raise SettingsError(f"the manifest {path} can't be read: {error.strerror or error}") from error
    return count + (last != b"\n")


def _load_lines(connection: Connection, known: Sequence[tuple[Path, int]]) -> list[str]:
    """Load the manifests' lines; returns the paths of manifests with an incomplete last line.

    Lines after the first `known` ones only mean that their messages may be in the tables.
    """
    torn = []
    connection.execute(queries("audit")["create_manifest"])
    with connection.cursor() as cursor, cursor.copy(queries("audit")["copy_manifest"]) as copy:
        for path, line_count in known:
            lines = read_manifest(path)
            for line in lines:
                copy.write_row(_columns(line, known=lines.line_number <= line_count))
            if lines.torn:
                torn.append(str(path))
    for name in ("index_manifest_deliveries", "index_manifest_ids", "analyze_manifest"):
        connection.execute(queries("audit")[name])
    return torn


def _columns(line: ManifestLine, *, known: bool) -> tuple[str | None, ...]:
    state = line.state if known else "intended"
    return state, _text(line.tenant_id), _text(line.message_id), line.digest, _text(line.delivery_id)


def _load_digests(connection: Connection) -> None:
    """Load the digest of each stored payload, which PostgreSQL can't compute."""
    connection.execute(queries("audit")["create_stored"])
    # A named cursor reads a million payloads in pages, to save memory.
    with connection.cursor("payloads") as payloads, connection.cursor() as cursor:
        payloads.execute(queries("audit")["payloads"])
        while page := payloads.fetchmany(_PAGE):
            with cursor.copy(queries("audit")["copy_stored"]) as copy:
                for *columns, payload in page:
                    copy.write_row((*columns, payload_digest(payload)))
    connection.execute(queries("audit")["analyze_stored"])


def _text(value: str | None) -> str | None:
    # A manifest may have ids that no column can hold; they match no row, but must not stop the audit.
    return None if value is None else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _states(queued: Mapping[str, int]) -> str:
    return ", ".join(f"{state.replace('_', ' ')} {count}" for state, count in queued.items())


def _note(connection: Connection, report: AuditReport, problem: str, name: str) -> None:
    report.note(problem, *_found(connection, name))


def _found(connection: Connection, name: str) -> tuple[list[Row], int]:
    """Query a problem: its first rows, and its count."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(queries("audit")[name], {"kept": _KEPT_MAX}).fetchall()
    counts = [row.pop("found") for row in rows]
    return rows, counts[0] if counts else 0


def _row(connection: Connection, name: str) -> dict[str, int]:
    with connection.cursor(row_factory=dict_row) as cursor:
        [row] = cursor.execute(queries("audit")[name]).fetchall()
    return row
