"""The SQL, by name, as it stands in `sql/queries/*.sql` and `sql/migrations/*.sql`.

A query begins with `-- name: one line of purpose` and ends where the next one begins. `-- $name: purpose`
begins a part of queries: `$name` stands for its text in those that come after it in the same file.
"""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString

_HEADING = re.compile(r"^-- (?P<name>\$?[a-z_]+): (?P<purpose>.+)$", re.MULTILINE)
_PART = re.compile(r"\$[a-z_]+")


def sql_folder() -> Path:
    """Give the folder of the SQL: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "sql"
    return beside if (beside / "migrations").is_dir() else package / "sql"


@cache
def queries(topic: str) -> dict[str, LiteralString]:
    """Read `sql/queries/<topic>.sql`: its queries by name, with psycopg's placeholders.

    The text is ours and not a user's, hence LiteralString, which psycopg asks for.
    """
    text = (sql_folder() / "queries" / f"{topic}.sql").read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    found: dict[str, LiteralString] = {}
    for heading, end in zip(headings, ends, strict=True):
        found[heading["name"]] = _PART.sub(lambda part: found[part[0]], text[heading.end() : end].strip())
    return {name: query for name, query in found.items() if not name.startswith("$")}
