"""Compares the sink's lines with the totals: equal to the last digit, and no line is pending."""

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any, TypeAlias

import psycopg

from processor.devstack.servers.sink import DIGITS_MAX, SinkJournal, SinkRequest, amount_of, group_of

Group: TypeAlias = tuple[str, ...]
Count: TypeAlias = tuple[Decimal, int]

_USAGE = """
SELECT
  usage.tenant_id, usage.meter, usage.group_by, usage.value, usage.messages,
  to_char(usage.window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  meter.group_names = '{product_sku,use_unity}' AND meter.value_pointer IS NOT DISTINCT FROM '/used_amount'
FROM usage JOIN meter USING (meter_id)
WHERE meter.is_handed_over AND (usage.value <> 0 OR usage.messages <> 0)
"""

WAITING = """
SELECT
  (SELECT count(*) FROM usage_line JOIN meter USING (meter_id)
    WHERE is_handed_over AND handed_over_at IS NULL)
  + (SELECT count(*) FROM usage_batch WHERE handed_over_at IS NULL)
  + (SELECT count(*) FROM total WHERE NOT is_closed AND closes_at <= now())
"""
"""How many totals, lines and batches have a step before them."""


def sink_differences(
    connection: psycopg.Connection[Any], books: SinkJournal, requests: Sequence[SinkRequest]
) -> list[str]:
    """Say where the sink's books are not what the totals are; empty: nothing is wrong."""
    expected, found = _totals(connection), _sums(books.lines.values())
    wrong = [
        f"{' '.join(group)}: {expected.get(group)} by the totals, {found.get(group)} by the sink"
        for group in sorted(expected.keys() | found.keys())
        if expected.get(group) != found.get(group)
    ]
    wrong += [f"line {key} came again with another content" for key in books.changed]
    wrong += [f"{' '.join(group)}: a revision is missing" for group in books.missing_revisions()]
    wrong += [f"batch {key} came again with another content" for key in _changed(requests)]
    row = connection.execute(WAITING).fetchone()
    if row is None or row[0]:
        wrong.append(f"{row and row[0]} totals, lines or batches still wait")
    return wrong


def _totals(connection: psycopg.Connection[Any]) -> dict[Group, Count]:
    found = {}
    for tenant_id, meter, group_by, value, messages, window, is_pulse in connection.execute(_USAGE):
        what = [] if is_pulse else [meter]
        values = [group_by[name] for name in sorted(group_by)]
        found[tenant_id, *what, *values, window] = (value, messages)
    return found


def _sums(lines: Iterable[Mapping[str, Any]]) -> dict[Group, Count]:
    """Add lines up by what they are about; what came to nothing is left out."""
    sums: dict[Group, Count] = {}
    with localcontext(prec=DIGITS_MAX):
        for line in lines:
            before = sums.get(group_of(dict(line)), (Decimal(0), 0))
            sums[group_of(dict(line))] = (before[0] + amount_of(dict(line)), before[1] + line["messages"])
    return {group: count for group, count in sums.items() if any(count)}


def _changed(requests: Iterable[SinkRequest]) -> list[str]:
    """Name the idempotency keys under which not always the same lines came."""
    first: dict[str, Any] = {}
    return [
        request.key
        for request in requests
        if first.setdefault(request.key, json.loads(request.body)) != json.loads(request.body)
    ]
