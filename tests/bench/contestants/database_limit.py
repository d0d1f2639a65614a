"""Measures the database alone: COPY or INSERT of the same rows over one connection, without a queue.

python -m tests.bench.contestants.database_limit copy|insert ROWS      prints one line of JSON
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.bench import events

COPY_ROWS = 5_000
INSERT_ROWS = 500
TYPES = {
    "tenant_id": "text",
    "message_id": "text",
    "producer": "text",
    "event_type": "text",
    "schema_id": "int8",
    "occurred_at": "timestamptz",
    "sent_at": "timestamptz",
    "payload": "jsonb",
    "queue": "text",
    "delivery_id": "text",
    "receive_count": "int4",
}
COLUMNS = ", ".join(TYPES)
COPY = f"COPY message ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
# jsonb has no binary form that psycopg would write from text, so the payload travels as text.
ARRAYS = ", ".join(f"%b::{'text' if kind == 'jsonb' else kind}[]" for kind in TYPES.values())
INSERT = (
    f"INSERT INTO message ({COLUMNS}) SELECT {COLUMNS.replace('payload', 'payload::jsonb')} "
    f"FROM unnest({ARRAYS}) AS incoming ({COLUMNS}) ON CONFLICT ON CONSTRAINT message_pkey DO NOTHING"
)

Row = tuple[Any, ...]


def main() -> None:
    how, count = sys.argv[1], int(sys.argv[2])
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        # Warm, as everybody is: the pages of the catalogue read, the statement prepared.
        warm_up = _rows(connection, count, min(count, 2_000))
        rows = _rows(connection, 0, count)
        store = _copy if how == "copy" else _insert
        store(connection, warm_up)
        began_at, began_cpu_s = time.time(), time.process_time()
        store(connection, rows)
        seconds, cpu_s = time.time() - began_at, time.process_time() - began_cpu_s
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "warm_up": len(warm_up)}))


def _copy(connection: psycopg.Connection[Any], rows: Sequence[Row]) -> None:
    for chunk in _chunks(rows, COPY_ROWS):
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(list(TYPES.values()))
            for row in chunk:
                # The text is JSON already.
                copy.write_row((*row[:7], Jsonb(row[7], dumps=str.encode), *row[8:]))
        connection.commit()


def _insert(connection: psycopg.Connection[Any], rows: Sequence[Row]) -> None:
    for chunk in _chunks(rows, INSERT_ROWS):
        connection.execute(INSERT.encode(), [list(column) for column in zip(*chunk, strict=True)])
        connection.commit()


def _chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _rows(connection: psycopg.Connection[Any], first: int, count: int) -> list[Row]:
    """Make the rows that the events become, sorted by key."""
    found = connection.execute("SELECT schema_id FROM event_schema").fetchone()
    connection.commit()
    schema_id, text, now = (found or (0,))[0], events.template(), datetime.now(UTC)
    rows = []
    for number in range(first, first + count):
        event = json.loads(events.body(number, text))
        occurred_at = datetime.fromisoformat(event["occurred_at"])
        key = (event["tenant_id"], event["id"], event["producer"], event["event_type"])
        payload = json.dumps(event["payload"])
        rows.append((*key, schema_id, occurred_at, now, payload, "limit", f"delivery-{number}", 1))
    return sorted(rows, key=lambda row: row[:3])


if __name__ == "__main__":
    main()
