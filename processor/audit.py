"""The proof that the books are right: by themselves, and message by message against what producers sent.

    accepted by the queue = message + duplicate + rejection (open or discarded)
                            + still queued (visible, in flight, delayed, or in its dead-letter queue)

What can be wrong has four names. lost: accepted, and nowhere. unexpected: stored, and never sent. twice: one
delivery in two tables, or one sent message in two rows. altered: stored with another payload than was sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.manifest import payload_digest, read_manifest
from processor.queries import queries

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

LISTED_MAX = 20
"""As many ids of each problem are printed; JSON has the first thousand."""

_KEPT_MAX = 1000
_PAGE = 2000

_MEANINGS = {
    "lost": "accepted by the queue, and in no table",
    "unexpected": "stored, and named in no manifest (give the manifests of all producers)",
    "twice": "one delivery in two tables, or one message in two rows",
    "altered": "stored with another payload than was sent",
    "duplicates_of_nothing": "noted as duplicate of a message that is not there",
    "replayed_to_nothing": "closed as replayed, and in no other table",
}


@dataclass(slots=True)
class Report:
    """What the audit found.

    `outcomes` counts rows; `queued` counts the queue's messages by state, None if it was not asked;
    `accepted` counts the manifests' deliveries by where they are, None without a manifest. `problems` maps
    each problem to its count, `examples` to the first of its rows.
    """

    outcomes: dict[str, int]
    queued: dict[str, int] | None
    accepted: dict[str, int] | None = None
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Row]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.problems.values())

    def note(self, problem: str, rows: Sequence[Row], count: int | None = None) -> None:
        """Add what was found of one problem."""
        self.problems[problem] = self.problems.get(problem, 0) + (len(rows) if count is None else count)
        self.examples.setdefault(problem, []).extend(rows[:_KEPT_MAX])

    def as_dict(self) -> dict[str, Any]:
        """Give the report as a JSON object."""
        return {
            "holds": self.holds,
            "outcomes": self.outcomes,
            "queued": self.queued,
            "accepted": self.accepted,
            "problems": self.problems,
            "examples": {problem: rows for problem, rows in self.examples.items() if rows},
            "torn_manifests": self.torn,
        }

    def text(self) -> str:
        """Give the report as lines for a person."""
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
        yield "the audit holds" if self.holds else "THE AUDIT DOES NOT HOLD"

    def _equation(self, queued: int | None) -> Iterator[str]:
        where = self.accepted or self.outcomes
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
            counted = "?" if queued is None else queued
            yield f"  + still queued        {still:>9}   (the queue counts {counted})"
            yield f"  + lost                {where['missing'] - still:>9}"
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
        else:
            states = "unknown: set SQS_QUEUE_URL" if self.queued is None else _states(self.queued)
            yield f"still queued            {'?' if queued is None else queued:>9}   ({states})"


def audit(
    connection: Connection, manifests: Sequence[Path], queue_depth: Callable[[], Mapping[str, int]] | None
) -> Report:
    """Audit the tables, and the manifests' messages if there are any.

    The queue is asked first and the tables after it, so that what moves from one to the other meanwhile is
    seen at least once. Raises SettingsError for a manifest that can't be read, SourceUnavailable.
    """
    queued = None if queue_depth is None else dict(queue_depth())
    # One snapshot for all questions: a running processor changes nothing between two of them.
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report = Report(outcomes=_row(connection, "outcomes"), queued=queued)
        report.note("twice", _rows(connection, "in_two_tables"))
        report.note("duplicates_of_nothing", _rows(connection, "duplicates_of_nothing"))
        report.note("replayed_to_nothing", _rows(connection, "replayed_to_nothing"))
        if manifests:
            _compare(connection, manifests, report)
    return report


def _compare(connection: Connection, manifests: Sequence[Path], report: Report) -> None:
    _load(connection, manifests, report)
    report.accepted = _row(connection, "accepted")
    missing = report.accepted["missing"]
    lost = max(0, missing - sum((report.queued or {}).values()))
    # While some are still queued nobody can say which of the missing they are.
    report.note("lost", _rows(connection, "missing") if lost else [], lost)
    report.note("unexpected", _rows(connection, "unexpected"))
    report.note("twice", _rows(connection, "stored_twice"))
    report.note("altered", list(_altered(connection)))
    order = list(_MEANINGS)
    report.problems = dict(sorted(report.problems.items(), key=lambda item: order.index(item[0])))


def _load(connection: Connection, manifests: Sequence[Path], report: Report) -> None:
    connection.execute(queries("audit")["create_manifest"])
    with connection.cursor() as cursor:
        with cursor.copy(queries("audit")["copy_manifest"]) as copy:
            for path in manifests:
                lines = read_manifest(path)
                for line in lines:
                    copy.write_row(
                        (
                            line.state,
                            _text(line.tenant_id),
                            _text(line.message_id),
                            line.digest,
                            line.delivery_id,
                        )
                    )
                if lines.torn:
                    report.torn.append(str(path))
        cursor.execute(queries("audit")["index_manifest"])


def _altered(connection: Connection) -> Iterator[Row]:
    # A named cursor: a million payloads are read in pages, not held in memory.
    with connection.cursor("stored", row_factory=dict_row) as cursor:
        cursor.itersize = _PAGE
        for row in cursor.execute(queries("audit")["stored_with_digests"]):
            digests = [digest for digest in row["digests"] or () if digest is not None]
            if digests and payload_digest(row["payload"]) not in digests:
                yield {name: row[name] for name in ("tenant_id", "message_id", "producer", "delivery_id")}


def _text(value: str | None) -> str | None:
    # A manifest may name ids that no table can hold; they can match nothing, but must not stop the audit.
    return None if value is None else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _states(queued: Mapping[str, int]) -> str:
    return ", ".join(f"{state.replace('_', ' ')} {count}" for state, count in queued.items())


def _rows(connection: Connection, name: str) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries("audit")[name]).fetchall()


def _row(connection: Connection, name: str) -> dict[str, int]:
    return _rows(connection, name)[0]
