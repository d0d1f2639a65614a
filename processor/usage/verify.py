"""The verification of totals against the messages, to the last digit.

    message ──metered()──▶ sums ─┐
    usage_removal (retention) ───┴─▶ expected ◀─ compare ─▶ total ◀─ compare ─▶ usage_line

All queries use one snapshot, so processors may continue. The database adds and compares, and spills to disk
if memory is short; the result is counts and the first differences. The verification is read-only and runs on
a standby, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.usage.selection import Connection, Row, TotalsSelection, choose, digits, moment

LISTED_MAX = 20
"""The most examples printed per problem; JSON has the first thousand."""

_KEPT_MAX = 1000

_SHOWN = {
    "group_by": "group",
    "revision": "revision",
    "expected_revision": "expected_revision",
    "expected": "expected",
    "found": "found",
    "expected_messages": "expected_messages",
    "found_messages": "found_messages",
    "messages": "messages",
}

_MEANINGS = {
    "total_differs": "totals that are not what their messages say; processor usage rebuild mends them",
    "line_differs": "lines (usage_line) that don't follow from the revisions before them",
    "closing_differs": "closed totals whose last line (usage_line) says something else",
}


@dataclass(slots=True)
class VerifyReport:
    """The report of verify.

    `totals` and `messages` count the compared rows, `misses` the messages that a meter could not count, which
    are no problem here (processor meter show). `removed_windows` counts windows with messages that retention
    has removed; their amounts are in usage_removal. `problems` maps each problem to its count, `examples` to
    the first of them; value and count of a problem are `expected` and `found`.
    """

    totals: int
    messages: int
    misses: int
    removed_windows: list[Row]
    removed_window_count: int
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether there is no problem."""
        return not any(self.problems.values())

    def note(self, problem: str, rows: list[Row], count: int) -> None:
        """Record `count` findings of one problem; `rows` are the first of them."""
        self.problems[problem] = count
        self.examples[problem] = [_named(row) for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object; sums are strings, with all digits."""
        return {
            "holds": self.holds,
            "totals": self.totals,
            "messages": self.messages,
            "misses": self.misses,
            "removed_window_count": self.removed_window_count,
            "removed_windows": self.removed_windows,
            "problems": self.problems,
            "examples": {problem: rows for problem, rows in self.examples.items() if rows},
        }

    def text(self) -> str:
        """Format the report for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.totals} totals of {self.messages} messages compared"
        if self.misses:
            yield f"{self.misses} messages could not be counted by a meter: processor meter show says why"
        if self.removed_window_count:
            yield f"{self.removed_window_count} windows lost messages to retention, whose books are added:"
            yield from _listed(self.removed_windows, self.removed_window_count)
        yield ""
        for problem, count in self.problems.items():
            yield f"{'ok' if not count else '!!'}  {problem:16} {count:>9}   {_MEANINGS[problem]}"
            yield from _listed(self.examples[problem], count)
        yield ""
        yield "the totals hold" if self.holds else "THE TOTALS DO NOT HOLD"


def verify(connection: Connection, selection: TotalsSelection = TotalsSelection()) -> VerifyReport:  # noqa: B008 - it is frozen
    """Compare the totals with the messages, and the lines with the totals; other sessions may write.

    The connection must be in autocommit mode and see all rows. Raises NotFound for an unknown tenant or
    meter, SettingsError for invalid windows.
    """
    sql = queries("usage")
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(sql["freeze_snapshot"])
        cursor.execute(sql["spare_compiler"])
        parameters = choose(connection, selection).parameters | {"kept": _KEPT_MAX}
        # Not prepared: a generic plan would keep the conditions whose limits are NULL.
        compared = cursor.execute(sql["compare_totals"], parameters, prepare=False).fetchall()
        removed = cursor.execute(sql["removed_windows"], parameters, prepare=False).fetchall()
        [summary, *_] = compared
        report = VerifyReport(
            totals=summary["total_count"],
            messages=summary["message_count"],
            misses=summary["miss_count"],
            removed_windows=[_named(row) for row in removed],
            removed_window_count=_count(removed),
        )
        report.note(
            "total_differs", [row for row in compared if row["tenant_id"] is not None], summary["found_count"]
        )
        for problem, name in (("line_differs", "false_lines"), ("closing_differs", "false_closings")):
            rows = cursor.execute(sql[name], parameters, prepare=False).fetchall()
            report.note(problem, rows, _count(rows))
    return report


def _count(rows: list[Row]) -> int:
    return int(rows[0]["found_count"]) if rows else 0


def _named(row: Row) -> Row:
    """Order a row for output: first the keys of the total, then its values."""
    shown = {
        "tenant_id": row["tenant_id"],
        "meter": row["meter"],
        "window_start": moment(row["window_start"]),
    }
    for name, shown_as in _SHOWN.items():
        if name in row:
            value = row[name]
            shown[shown_as] = digits(value) if isinstance(value, Decimal) else value
    return shown


def _listed(rows: list[Row], count: int) -> Iterator[str]:
    for row in rows[:LISTED_MAX]:
        yield "      " + "  ".join(f"{name}={value}" for name, value in row.items())
    if count > LISTED_MAX:
        yield f"      ... and {count - LISTED_MAX} more"
