"""The SQL beside this file, by name, written as `sql/queries/*.sql` is: `-- name: one line of purpose`."""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString

_HEADING = re.compile(r"^-- (?P<name>[a-z_]+): .+$", re.MULTILINE)


@cache
def named(topic: str) -> dict[str, LiteralString]:
    """Read `sql/<topic>.sql`: its statements by name, with psycopg's placeholders."""
    text = (Path(__file__).parent / "sql" / f"{topic}.sql").read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {
        heading["name"]: text[heading.end() : end].strip()
        for heading, end in zip(headings, ends, strict=True)
    }
