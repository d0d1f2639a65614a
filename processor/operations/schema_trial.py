"""A schema is tried before it is published: on the stored messages, and on the open rejections of its type.

    message ───▶ keys, newest first ─▶ payloads ───▶ judged ─────────────▶ would be rejected, and why
    rejection ─▶ ids, newest first ──▶ deliveries ─▶ read and judged ────▶ would pass, or why not

All is judged by the registry as it would be then, and by nothing but `Schemas`. Only those messages count to
whose tenants the new version would apply. The tables are read in short transactions that write nothing and
lock nothing, so that processors and retention go on; what is stored meanwhile is not looked at.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

from processor.database.queries import queries
from processor.errors import StoreUnavailable
from processor.model import Delivery, EventSchema, Message, Registry
from processor.sources.quarantine import QuarantineSource, RejectionSelection
from processor.validation.validator import Schemas
from processor.wire.formats import Envelope
from processor.wire.strict_json import JsonFault, read

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

EXAMPLES_MAX = 5
LIMIT = 100_000
"""As many of each are looked at, unless more are asked for: some seconds, however large the table is."""

_KEYS_PAGE, _BODIES_PAGE = 10_000, 100
_PAYLOADS_PAGE, _PAYLOADS_BYTES_MAX = 500, 1024 * 1024
"""Of one question. The bytes are those of compressed payloads, which may be many times as long."""

_STATEMENT_S = 60
_SHORTER_TRIES = 4
_QUICK_S = 2.0
_SPAN, _SPAN_MIN = timedelta(minutes=1), timedelta(milliseconds=1)
_KEY = ("stored_at", "tenant_id", "message_id", "producer")
_EVER = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrialScope:
    """The version that is to be tried, and on what: of which age (None: any), and how many of each.

    `without` are the tenants to which it would not apply, since they have schemas of their own.
    """

    schema: EventSchema
    without: tuple[str, ...] = ()
    since: datetime | None = None
    limit: int = LIMIT

    def parameters(self) -> Row:
        """Give it as the parameters of `sql/queries/schema_trial.sql`."""
        return {
            "event_type": self.schema.event_type,
            "tenant_id": self.schema.tenant_id,
            "without": list(self.without),
            "since": self.since or _EVER[0],
        }


@dataclass(slots=True)
class Stored:
    """What would become of stored messages; `is_all` says that none was left out for the limit.

    Of those that would be rejected, `rejected_already` would be so by the registry of today too. `unread` of
    them can't be read as JSON, as no processor stores it. `examples` are the newest that would be rejected.
    `about` is how many there are, by the planner's estimate. To look further back than `reached` took too
    long; None: it did not.
    """

    judged: int = 0
    rejected: int = 0
    rejected_already: int = 0
    unread: int = 0
    examples: list[Row] = field(default_factory=list)
    about: int = 0
    reached: datetime | None = None
    is_all: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class Rejected:
    """What would become of open rejections; `is_all` says that none was left out for the limit.

    Of those that would pass, `passing_already` pass by the schemas of today too. `cut` of them keep the head
    of their body alone, so nobody can tell. `reasons` counts those that would be rejected again.
    """

    judged: int = 0
    passing: int = 0
    passing_already: int = 0
    cut: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    is_all: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class SchemaTrialReport:
    """What was found; None: not asked for. `tenants` counts by tenant, None: one that is not registered.

    `stopped` says that Ctrl-C came before the end.
    """

    asked: TrialScope
    stored: Stored | None = None
    rejected: Rejected | None = None
    tenants: dict[str | None, Counter[str]] = field(default_factory=dict)
    stopped: bool = False

    def of(self, tenant_id: str | None) -> Counter[str]:
        """Give the counts of one tenant."""
        return self.tenants.setdefault(tenant_id, Counter())


def planned(
    registry: Registry, schema: EventSchema, id_scope: Sequence[str], since: datetime | None, limit: int
) -> tuple[TrialScope, Registry]:
    """Give what is asked, and the registry as it would be with this schema as the next version."""
    same = [known for known in registry.schemas if known.event_type == schema.event_type]
    version = max((known.version for known in same if known.tenant_id == schema.tenant_id), default=0) + 1
    schema = replace(schema, version=version)
    own = {known.tenant_id for known in same if known.tenant_id is not None}
    scopes = registry.id_scopes
    if id_scope and not same:
        scopes = {**scopes, schema.event_type: tuple(id_scope)}
    asked = TrialScope(schema, () if schema.tenant_id else tuple(sorted(own)), since, limit)
    return asked, replace(registry, schemas=(*registry.schemas, schema), id_scopes=scopes)


def try_out(
    connection: Connection,
    asked: TrialScope,
    then: Schemas,
    now: Schemas,
    *,
    against: Sequence[str],
    on_batch: Callable[[str, int], object] = lambda _what, _count: None,
) -> SchemaTrialReport:
    """Judge what is there by the registry that `then` has; `now` has that of today. Changes nothing.

    `against` names "stored", "rejected" or both. Raises StoreUnavailable where the tables are too
    slow to read.
    """
    report = SchemaTrialReport(asked)
    try:
        if "stored" in against:
            report.stored = Stored()
            _try_stored(connection, report, report.stored, (then, now), on_batch)
        if "rejected" in against:
            report.rejected = Rejected()
            _try_rejected(connection, report, report.rejected, (then, now), on_batch)
    except KeyboardInterrupt:
        report.stopped = True
    except psycopg.errors.QueryCanceled:
        raise _too_slow() from None
    return report


def _too_slow() -> StoreUnavailable:
    return StoreUnavailable(
        f"the database took longer than {_STATEMENT_S} s to look through a part of its tables; try it "
        "again when there is less to do, or for one tenant (--tenant)"
    )


# ── stored messages ───────────────────────────────────────────────────────────────────────────────────


def _try_stored(
    connection: Connection,
    report: SchemaTrialReport,
    found: Stored,
    judges: tuple[Schemas, Schemas],
    on_batch: Callable[[str, int], object],
) -> None:
    began = time.monotonic()
    with _brief(connection):
        [(plan,)] = connection.execute(
            queries("schema_trial")["estimate_stored"], report.asked.parameters()
        ).fetchall()
    found.about = int(plan[0]["Plan"]["Plan Rows"])
    left = report.asked.limit
    for keys in _stored_keys(connection, report.asked, found):
        for row in _payloads(connection, keys[:left]):
            _judge_stored(report, found, judges, row)
        left -= len(keys)
        found.seconds = time.monotonic() - began
        on_batch("stored", found.judged)
        if left < 0:
            return
    found.is_all = found.reached is None


def _judge_stored(
    report: SchemaTrialReport, found: Stored, judges: tuple[Schemas, Schemas], row: Row
) -> None:
    event_type, text = report.asked.schema.event_type, row["payload"]
    counts = report.of(row["tenant_id"])
    then, now = judges
    refusal = None
    try:
        value = read(text, len(text), len(text)).value
    except JsonFault:
        found.unread += 1
    else:
        # It need not name a version: nobody keeps whether it did.
        envelope = Envelope(row["tenant_id"], event_type, None, "", None, None, text, value, None)
        refusal = then.refusal(envelope)
        found.rejected_already += refusal is not None and now.refusal(envelope) is not None
    # Counted once it is judged, since Ctrl-C may come at any time.
    found.judged += 1
    counts["stored"] += 1
    if refusal is None:
        return
    found.rejected += 1
    counts["stored_rejected"] += 1
    if len(found.examples) < EXAMPLES_MAX:
        detail = refusal.detail
        first = next(iter(detail.get("errors", ())), {"pointer": None, "rule": None})
        found.examples.append(
            {name: row[name] for name in (*_KEY[1:], _KEY[0])}
            | {"reason": refusal.reason.value, "message": detail["message"]}
            | {"pointer": first["pointer"], "rule": first["rule"]}
        )


def stored_texts(connection: Connection, asked: TrialScope) -> Iterator[str]:
    """Give the payloads of the messages that are asked for, newest first. Raises as `try_out` does."""
    left = asked.limit
    try:
        for keys in _stored_keys(connection, asked, Stored()):
            yield from (row["payload"] for row in _payloads(connection, keys[:left]))
            left -= len(keys)
            if left <= 0:
                return
    except psycopg.errors.QueryCanceled:
        raise _too_slow() from None


def _stored_keys(connection: Connection, asked: TrialScope, found: Stored) -> Iterator[list[Row]]:
    """Give the keys of all messages that are asked for, newest first, and of one more beyond the limit.

    No index has the newest messages of a type. So this looks back over a span of time, and a longer one as
    long as little was found in it and it was found quickly. Notes in `found` where that took too long.
    """
    floor, span, left = asked.since or _EVER[0], _SPAN, asked.limit
    start = edge = datetime.now(UTC)
    tries = _SHORTER_TRIES
    high = (_EVER[1], "", "", "")
    while high[0] > floor:
        low = floor if edge - floor <= span else edge - span
        size, began = min(_KEYS_PAGE, left + 1), time.monotonic()
        try:
            rows = _page_of_keys(connection, asked, low, high, size)
        except psycopg.errors.QueryCanceled:
            if tries:
                tries, span = tries - 1, span / 16
                continue
            if edge == start:
                raise
            found.reached = edge
            return
        took_s = time.monotonic() - began
        yield rows
        left -= len(rows)
        if len(rows) == size:
            newest, high = min(high[0], edge), itemgetter(*_KEY)(rows[-1])
            edge = high[0]
            span = max(2 * (newest - edge), _SPAN_MIN)
        else:
            high, edge = (low, "", "", ""), low
            span *= 4 if took_s < _QUICK_S else 1


def _page_of_keys(
    connection: Connection, asked: TrialScope, low: datetime, high: tuple[datetime, str, str, str], size: int
) -> list[Row]:
    names = ("high", "high_tenant_id", "high_message_id", "high_producer")
    bounds = dict(zip(names, high, strict=True)) | {"low": low, "limit": size}
    return _rows(connection, "stored_keys", asked.parameters() | bounds)


def _payloads(connection: Connection, keys: Sequence[Row]) -> Iterator[Row]:
    """Give the messages of these keys, in their order, a few at a time."""
    for part in _parts(keys):
        columns = {f"{name}s": [key[name] for key in part] for name in _KEY[1:]}
        rows = _rows(connection, "stored_payloads", columns)
        yield from sorted(rows, key=itemgetter(*_KEY), reverse=True)


def _parts(keys: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size_bytes = 0
    for key in keys:
        if part and (len(part) == _PAYLOADS_PAGE or size_bytes + key["size_bytes"] > _PAYLOADS_BYTES_MAX):
            yield part
            part, size_bytes = [], 0
        part.append(key)
        size_bytes += key["size_bytes"]
    if part:
        yield part


# ── open rejections ───────────────────────────────────────────────────────────────────────────────────


def _try_rejected(
    connection: Connection,
    report: SchemaTrialReport,
    found: Rejected,
    judges: tuple[Schemas, Schemas],
    on_batch: Callable[[str, int], object],
) -> None:
    began, asked, registered = time.monotonic(), report.asked, judges[0].registered
    below, left = 2**63 - 1, asked.limit
    while rows := _rows(
        connection,
        "open_rejections",
        asked.parameters() | {"below": below, "limit": min(_KEYS_PAGE, left + 1)},
    ):
        whole = {row["rejection_id"]: row["tenant_id"] for row in rows[:left] if not row["is_cut"]}
        found.cut += min(len(rows), left) - len(whole)
        for delivery in _deliveries(connection, list(whole)):
            tenant_id, _ = registered(whole[delivery.rejection_id or 0], None)
            _judge_rejected(report.of(tenant_id), found, judges, delivery)
        below, left = rows[-1]["rejection_id"], left - len(rows)
        found.seconds = time.monotonic() - began
        on_batch("rejected", found.judged)
        if left < 0:
            return
    found.is_all = True


def _judge_rejected(
    counts: Counter[str], found: Rejected, judges: tuple[Schemas, Schemas], delivery: Delivery
) -> None:
    then, now = judges
    reason = _reason(then, delivery)
    found.passing_already += reason is None and _reason(now, delivery) is None
    found.judged += 1
    counts["rejected"] += 1
    if reason is not None:
        found.reasons[reason] += 1
        return
    found.passing += 1
    counts["rejected_passing"] += 1


def _reason(schemas: Schemas, delivery: Delivery) -> str | None:
    verdict = schemas.validate(delivery)
    # Its tenant is registered when it is saved, within the bound of its queue.
    return None if isinstance(verdict, Message) or verdict.new_tenant else verdict.reason.value


def _deliveries(connection: Connection, ids: Sequence[int]) -> Iterator[Delivery]:
    for start in range(0, len(ids), _BODIES_PAGE):
        selection = RejectionSelection(rejection_ids=ids[start : start + _BODIES_PAGE])
        with _brief(connection):
            deliveries = QuarantineSource(connection, selection).receive(_BODIES_PAGE, 0)
        yield from deliveries


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _brief(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        connection.execute(queries("schema_trial")["keep_brief"], {"timeout_ms": str(_STATEMENT_S * 1000)})
        yield


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[Row]:
    # Never prepared: a plan for any span would not know how short this one is.
    with _brief(connection), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries("schema_trial")[name], parameters, prepare=False).fetchall()
