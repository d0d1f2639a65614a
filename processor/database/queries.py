"""Load named SQL queries from `sql/queries/*.sql`, and find the SQL folder.

A query begins with `-- name: one line of purpose` and ends where the next one begins. `-- $name: purpose`
begins a fragment: later queries of the same file insert its text by `$name`.
"""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString

_HEADING = re.compile(r"^-- (?P<name>\$?[a-z_]+): (?P<purpose>.+)$", re.MULTILINE)
_PART = re.compile(r"\$[a-z_]+")


def sql_folder() -> Path:
    """Return the SQL folder: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "sql"
    return beside if (beside / "migrations").is_dir() else package / "sql"


@cache
def queries(topic: str) -> dict[str, LiteralString]:
    """Read `sql/queries/<topic>.sql` and return its queries by name, with psycopg's placeholders.

    psycopg requires LiteralString, which is true: the text is ours and not a user's.
    """
    text = (sql_folder() / "queries" / f"{topic}.sql").read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    found: dict[str, LiteralString] = {}
    for heading, end in zip(headings, ends, strict=True):
        found[heading["name"]] = _PART.sub(lambda part: found[part[0]], text[heading.end() : end].strip())
    return {name: query for name, query in found.items() if not name.startswith("$")}
