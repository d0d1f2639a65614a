"""Batches: the lines of one request, stored before they are sent and marked afterwards.

    lines in no batch ─make─▶ usage_batch ─find══COMMIT══▶ claim (row locked) ─▶ sent
    sent ─┬▶ accepted ─▶ lines marked
          ├▶ in part ──▶ the rest: a new batch
          └▶ refused ──▶ later, whole or in halves

The row lock is held during the request, so two dispatchers never send the same line at once. If a dispatcher
dies, the next one retries the batch: the same lines under the same key. The COMMIT before the request waits
for the synchronous standby, so the lines that the sink may have are known after a failover, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg

from processor.database.queries import queries
from processor.handover.lines import LineId, UsageLine, batch_key
from processor.handover.place import require_place

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is locked until the transaction ends, with its lines that are not yet handed over."""

    batch_id: int
    key: str
    line_count: int
    attempt_count: int
    lines: Sequence[UsageLine]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The lines that still wait; the sink refused `refused` of them, individually or in a batch of one."""

    lines: int
    refused: int
    oldest_s: float


def make_batch(connection: Connection, lines_max: int) -> int:
    """Put the oldest unbatched lines into one batch and commit; returns their number, 0 if none wait."""
    sql = queries("dispatch")
    with connection.transaction():
        require_place(connection)
        # One dispatcher at a time, for a moment each: two would skip each other's lines.
        connection.execute(sql["wait_for_turn"])
        chosen = connection.execute(sql["choose_lines"], {"limit": lines_max}).fetchall()
        if chosen:
            lines = [LineId(*row[:5]) for row in chosen]
            keys = [key or line.key(meter) for line, (*_, meter, key) in zip(lines, chosen, strict=True)]
            _write_down(connection, lines, keys)
    return len(chosen)


def find(connection: Connection, *, any_time: bool = False, but: Sequence[int] = ()) -> int | None:
    """Return the id of the oldest batch that is due and that no dispatcher is sending; None: no such batch.

    The batch is durable on return, on the synchronous standby too. `any_time` includes batches in backoff;
    `but` lists batches to skip.
    """
    found = _find(connection, "find_batch", {"any_time": any_time, "but": list(but)})
    return found[0] if found else None


def find_all(connection: Connection) -> list[int]:
    """Return the ids of all waiting batches that no dispatcher is sending; they are durable on return."""
    return _find(connection, "find_batches", {})


def claim(connection: Connection, batch_ids: Sequence[int]) -> list[Batch]:
    """Lock, for this transaction, the given batches that still wait and that no other dispatcher holds.

    A batch that has lost lines since it was stored is replaced by a new batch with the remaining lines:
    its idempotency key stands for the original content.
    """
    require_place(connection)
    rows = connection.execute(queries("dispatch")["claim_batch"], {"batch_ids": list(batch_ids)}).fetchall()
    claimed = [_with_lines(connection, row) for row in rows]
    for batch in claimed:
        if 0 < len(batch.lines) < batch.line_count:
            trouble = "some of its lines were erased, or marked by a person"
            _put_aside(connection, batch, batch.lines, trouble, 0)
            _finish(connection, batch, trouble)
    return [batch for batch in claimed if not 0 < len(batch.lines) < batch.line_count]


def accept(connection: Connection, batch: Batch) -> None:
    """Mark a batch and its lines as handed over."""
    connection.execute(queries("dispatch")["mark_lines"], columns([line.id for line in batch.lines]))
    _finish(connection, batch, None)


def accept_in_part(connection: Connection, batch: Batch, troubles: Mapping[str, str], wait_s: float) -> None:
    """Mark the accepted lines; the refused ones (`troubles`: key to reason) are retried after `wait_s`."""
    taken = [line for line in batch.lines if line.key not in troubles]
    refused = [line for line in batch.lines if line.key in troubles]
    _note(connection, refused, [troubles[line.key] for line in refused])
    if not taken:
        # The same lines would make the same batch.
        postpone(connection, batch, "every line refused", wait_s)
        return
    connection.execute(queries("dispatch")["mark_lines"], columns([line.id for line in taken]))
    _put_aside(connection, batch, refused, "refused one by one", wait_s)
    _finish(connection, batch, f"{len(refused)} lines refused one by one")


def split(connection: Connection, batch: Batch, trouble: str, wait_s: float) -> None:
    """Split a batch that was refused whole in two, so that repeated splits isolate the bad line."""
    middle = len(batch.lines) // 2
    for half in (batch.lines[:middle], batch.lines[middle:]):
        _put_aside(connection, batch, half, trouble, wait_s)
    _finish(connection, batch, f"{trouble}; sent again in halves")


def postpone(connection: Connection, batch: Batch, trouble: str, wait_s: float) -> None:
    """Schedule a retry of the unchanged batch, `wait_s` seconds from now at the earliest."""
    asked = {"batch_id": batch.batch_id, "trouble": trouble, "wait_s": wait_s}
    connection.execute(queries("dispatch")["postpone_batch"], asked)


def refuse_alone(connection: Connection, batch: Batch, trouble: str, wait_s: float) -> None:
    """Store the reason on a line that was refused alone, and schedule its retry after `wait_s`."""
    _note(connection, batch.lines, [trouble] * len(batch.lines))
    postpone(connection, batch, trouble, wait_s)


def count_waiting(connection: Connection) -> Waiting:
    """Count the lines that are still to be handed over."""
    [row] = connection.execute(queries("dispatch")["waiting"]).fetchall()
    return Waiting(*row)


def _find(connection: Connection, name: str, asked: Mapping[str, Any]) -> list[int]:
    with connection.transaction():
        rows = connection.execute(queries("dispatch")[name], asked).fetchall()
        if rows:
            # The session that stored it may have died while its COMMIT waited for the standby.
            connection.execute(queries("save")["make_commit_wait"])
    return [batch_id for (batch_id,) in rows]


def _with_lines(connection: Connection, row: tuple[int, str, int, int]) -> Batch:
    lines = connection.execute(queries("dispatch")["lines_of_batch"], {"batch_id": row[0]}).fetchall()
    return Batch(*row, lines=[UsageLine(LineId(*line[:5]), *line[5:]) for line in lines])


def _put_aside(
    connection: Connection, batch: Batch, lines: Sequence[UsageLine], trouble: str, wait_s: float
) -> None:
    _write_down(
        connection,
        [line.id for line in lines],
        [line.key for line in lines],
        attempt_count=batch.attempt_count + 1,
        trouble=trouble,
        wait_s=wait_s,
    )


def _write_down(
    connection: Connection,
    lines: Sequence[LineId],
    keys: Sequence[str],
    *,
    attempt_count: int = 0,
    trouble: str | None = None,
    wait_s: float = 0,
) -> None:
    made = connection.execute(
        queries("dispatch")["make_batch"],
        {
            "batch_key": batch_key(keys),
            "line_count": len(lines),
            "attempt_count": attempt_count,
            "trouble": trouble,
            "wait_s": wait_s,
        },
    ).fetchall()
    [(batch_id,)] = made
    connection.execute(queries("dispatch")["put_in_batch"], columns(lines) | {"batch_id": batch_id})


def _finish(connection: Connection, batch: Batch, trouble: str | None) -> None:
    asked = {"batch_id": batch.batch_id, "trouble": trouble}
    connection.execute(queries("dispatch")["finish_batch"], asked)


def _note(connection: Connection, lines: Sequence[UsageLine], troubles: Sequence[str]) -> None:
    named = columns([line.id for line in lines]) | {"trouble": list(troubles)}
    connection.execute(queries("dispatch")["note_lines"], named)


def columns(lines: Sequence[LineId]) -> dict[str, list[Any]]:
    """Return the ids of lines as parallel columns, as the SQL statements expect them."""
    return {
        name: [getattr(line, name) for line in lines]
        for name in ("tenant_id", "meter_id", "window_start", "group_key", "revision")
    }
