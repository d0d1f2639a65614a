"""The duration of the DBA's ten queries on the largest table, and which of them scan all of it."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.growth.named import named
from tests.bench.growth.server import Connection, GrowthServer, literal

QUERIES = Path(__file__).parents[3] / "docs" / "reference" / "queries.md"
REPEATS = 3
LIMIT_S = 300
_QUESTION = re.compile(r"^(?P<words>[^\n]+?\?)[^\n]*\n\n```sql\n(?P<sql>.*?)```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """How long one question took: `first_s` with nothing in memory, `again_s` the best of some more."""

    words: str
    first_s: float
    again_s: float
    rows: int
    ways: str


def ten_questions() -> list[tuple[str, str]]:
    """Read the questions and their SQL from where people read them."""
    page = QUERIES.read_text(encoding="utf-8")
    text = page.partition("\n## Ten questions\n")[2].partition("\n## ")[0]
    return [(found["words"], found["sql"]) for found in _QUESTION.finditer(text)]


def ask(
    server: GrowthServer, database: str, questions: Sequence[tuple[str, str]], say: Callable[[str], None]
) -> list[Answer]:
    """Ask each question of a server that has just started, then some times more."""
    answers = []
    for words, question in questions:
        server.forget()
        with server.connect(database) as connection:
            connection.execute(f"SET statement_timeout = '{LIMIT_S}s'")
            answers.append(_answer(connection, words, question))
        say(f"questions: {answers[-1].first_s:.2f} s, then {answers[-1].again_s:.2f} s: {words}")
    return answers


def _answer(connection: Connection, words: str, question: str) -> Answer:
    ways = ", ".join(dict.fromkeys(_ways(_plan(connection, question))))
    try:
        first_s, rows = _timed(connection, question)
        again_s = min(_timed(connection, question)[0] for _ in range(REPEATS if first_s < 60 else 1))
    except psycopg.errors.QueryCanceled:
        return Answer(words, float("inf"), float("inf"), 0, ways)
    return Answer(words, first_s, again_s, rows, ways)


def _timed(connection: Connection, question: str) -> tuple[float, int]:
    began_s = time.perf_counter()
    rows = len(connection.execute(literal(question)).fetchall())
    return time.perf_counter() - began_s, rows


def _plan(connection: Connection, question: str) -> dict[str, Any]:
    row = connection.execute(literal(f"EXPLAIN (FORMAT JSON) {question}")).fetchone()
    assert row is not None
    plan: dict[str, Any] = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
    return plan


def _ways(plan: dict[str, Any]) -> Iterator[str]:
    """Name how each table is read, from the outside in."""
    if "Index Name" in plan:
        yield plan["Index Name"]
    elif "Relation Name" in plan and plan["Node Type"] == "Seq Scan":
        yield f"all of {plan['Relation Name']}"
    for part in plan.get("Plans", []):
        yield from _ways(part)


def prepare_questions(connection: Connection) -> None:
    """Put the one message there that the questions name, once."""
    there = connection.execute("SELECT 1 FROM message WHERE tenant_id = 'acme' AND message_id = 'order-1'")
    if there.fetchone() is None:
        connection.execute(named("fill")["fill_asked_for"])


def better_questions() -> list[tuple[str, str]]:
    """Give the ways to ask less of the table, which are tried beside the ten."""
    return [(name.replace("_", " "), text) for name, text in named("questions").items()]
