"""processor schema test, and processor schema publish --dry-run."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NoReturn

import click

from processor.cli.errors import Exit
from processor.cli.moments import Since
from processor.cli.output import json_option, moment_of, print_json, print_table
from processor.cli.progress import Progress
from processor.errors import Incompatible
from processor.model import EventSchema
from processor.operations.schema_trial import LIMIT, Rejected, SchemaTrialReport, Stored
from processor.runtime.escaping import escaped
from processor.runtime.terminal import fit, say
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import read_schema, schema_options
from processor.schemas.schema_text import schema_text
from processor.schemas.wording import listed
from processor.settings import ValidationSettings
from processor.wiring.trial import try_schema

_AGAINST = ("stored", "rejected")
_LISTED_MAX = 20


@click.command("test")
@click.argument("event_type")
@click.argument("file", type=click.File("rb"))
@schema_options
@click.option(
    "--against",
    type=click.Choice(_AGAINST),
    help="Judge the stored messages alone, or the open rejections alone.",
)
@click.option(
    "--tenant",
    "tenant_id",
    help="Try it as this tenant's own schema, on its messages alone; without it, as the shared one, for all "
    "tenants that have none of their own.",
)
@click.option(
    "--since",
    type=Since(),
    help="Only what was stored or rejected since then: 7d, 12h, or a time (RFC 3339; UTC if bare).",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=LIMIT,
    show_default=True,
    help="Judge so many messages, and so many rejections, the newest first.",
)
@json_option
def schema_test(
    event_type: str,
    *,
    file: BinaryIO,
    how: HowToRead,
    against: str | None,
    tenant_id: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Test FILE (or -) as the next schema version on stored messages and open rejections; publish nothing.

    The command prints how many stored messages would be rejected, with the newest five and the reasons, and
    how many open rejections would pass (some may still be duplicates). Exit code 3 if any stored message
    would be rejected. It reads in small batches without locks, beside running processors. The role
    processor_reader is sufficient.

    Stored messages are validated as if their events named no schema version. Messages of suspended tenants
    and voided messages are included.
    """
    definition = read_schema(file, how)
    run_trial(
        event_type,
        definition,
        how=how,
        tenant_id=tenant_id,
        against=_AGAINST if against is None else (against,),
        since=since,
        limit=limit,
        as_json=as_json,
    )


def run_trial(
    event_type: str,
    definition: Any,  # noqa: ANN401 - any JSON value
    *,
    how: HowToRead,
    tenant_id: str | None,
    id_scope: Sequence[str] = (),
    compat: str | None = "none",
    against: Sequence[str] = _AGAINST,
    since: datetime | None = None,
    limit: int = LIMIT,
    as_json: bool,
) -> NoReturn:
    """Test a schema, print the report, and exit with its code.

    Raises Incompatible after the report if the schema breaks `compat`.
    """
    progress = Progress()

    def tried(compat: str | None) -> SchemaTrialReport:
        return try_schema(
            ValidationSettings.load(),
            EventSchema(0, event_type, tenant_id, 0, schema_text(definition), how.formats),
            id_scope,
            compat=compat,
            against=against,
            since=since,
            limit=limit,
            on_batch=lambda what, count: progress.say(f"{count:,} {_WHAT[what]} judged"),
        )

    broken_promise = None
    try:
        report = tried(compat)
    except Incompatible as refusal:
        report, broken_promise = tried("none"), refusal
    if as_json:
        print_json(_as_dict(report))
    else:
        _print(report)
    if broken_promise is not None:
        raise broken_promise
    if report.stopped:
        say("stopped; this is what was judged until then", err=True)
    broken = report.stored is not None and report.stored.rejected > 0
    if broken:
        raise SystemExit(Exit.PROBLEM_FOUND)
    raise SystemExit(_INTERRUPTED if report.stopped else Exit.FINE)


_INTERRUPTED = 130
_WHAT = {"stored": "stored messages", "rejected": "open rejections"}


def _as_dict(report: SchemaTrialReport) -> dict[str, Any]:
    schema, stored, rejected = report.asked.schema, report.stored, report.rejected
    return {
        "event_type": schema.event_type,
        "tenant_id": schema.tenant_id,
        "version": schema.version,
        "tenants_with_their_own": list(report.asked.without),
        "finished": not report.stopped,
        "stored": stored
        and {
            "judged": stored.judged,
            "would_be_rejected": stored.rejected,
            "rejected_already": stored.rejected_already,
            "unreadable": stored.unread,
            "is_all": stored.is_all,
            "back_to": stored.reached,
            "estimated_count": stored.judged if stored.is_all else max(stored.about, stored.judged),
            "seconds": round(stored.seconds, 3),
            "examples": stored.examples,
        },
        "rejected": rejected
        and {
            "judged": rejected.judged,
            "would_pass": rejected.passing,
            "pass_already": rejected.passing_already,
            "would_be_rejected": dict(rejected.reasons.most_common()),
            "cut": rejected.cut,
            "is_all": rejected.is_all,
            "seconds": round(rejected.seconds, 3),
        },
        "tenants": [_tenant_row(report, tenant_id) for tenant_id in _tenants(report)],
    }


def _print(report: SchemaTrialReport) -> None:
    schema = report.asked.schema
    whose = "shared" if schema.tenant_id is None else f"tenant {schema.tenant_id}"
    say(f"{schema.event_type}, version {schema.version} to be ({whose}); nothing is published")
    if own := report.asked.without:
        say(fit(f"it would not apply to {listed(own, 3)}: there are schemas of their own"))
    if report.stored is not None:
        for line in _of_stored(report.stored):
            say(fit(line, "  "))
    if report.rejected is not None:
        for line in _of_rejected(report.rejected, schema):
            say(fit(line, "  "))
    tenants = _tenants(report)
    if len(tenants) > 1:
        rows = [_tenant_row(report, tenant_id) for tenant_id in tenants[:_LISTED_MAX]]
        click.echo()
        print_table(
            [name.replace("_", " ") for name in rows[0]],
            [["not registered" if value is None else value for value in row.values()] for row in rows],
        )
        if len(tenants) > _LISTED_MAX:
            say(f"and {len(tenants) - _LISTED_MAX} more tenants (--json has all)")


def _of_stored(found: Stored) -> Iterator[str]:
    yield ""
    if not found.judged:
        yield "stored messages: none of this type" if found.is_all else "stored messages: none was judged"
        return
    yield f"stored messages: {found.rejected:,} of {_part(found)} would be rejected"
    if found.rejected_already:
        yield f"  {found.rejected_already:,} of these would be rejected by what is published now, too"
    if found.unread:
        yield f"  {found.unread:,} can't be read: no processor stored them so"
    for row in found.examples:
        who = f"{row['tenant_id']}  {row['message_id']}"
        producer = f"  (producer {row['producer']})" if row["producer"] else ""
        yield escaped(f"  {who}{producer}  stored {moment_of(row['stored_at'])}")
        yield escaped(f"    {row['message']}")
    if found.rejected > len(found.examples):
        yield f"  ... and {found.rejected - len(found.examples):,} more"
    if found.seconds > 1:
        yield f"  judged in {found.seconds:.1f} s, {found.judged / found.seconds:,.0f} a second"


def _part(found: Stored) -> str:
    if found.is_all:
        return f"{found.judged:,}"
    if found.reached is not None:
        words = f"back to {moment_of(found.reached)}; to look further back took too long"
        return f"the newest {found.judged:,} ({words})"
    if found.about > found.judged:
        return f"the newest {found.judged:,} (of some {found.about:,}, by estimate)"
    return f"the newest {found.judged:,} (there are more)"


def _of_rejected(found: Rejected, schema: EventSchema) -> Iterator[str]:
    yield ""
    if not found.judged + found.cut:
        yield "open rejections: none of this type" if found.is_all else "open rejections: none was judged"
        return
    part = f"{found.judged:,}" if found.is_all else f"the newest {found.judged:,}"
    yield f"open rejections: {found.passing:,} of {part} would pass"
    if found.passing:
        whose = "" if schema.tenant_id is None else f" --tenant {schema.tenant_id}"
        yield f"  once it is published: processor rejection replay --event-type {schema.event_type}{whose}"
    if found.passing_already:
        yield f"  {found.passing_already:,} of these pass without it, too"
    if found.reasons:
        words = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons.most_common())
        yield f"  still rejected: {words}"
    if found.cut:
        yield f"  {found.cut:,} more can't be told: only the head of their body is kept"


def _tenants(report: SchemaTrialReport) -> list[str | None]:
    """Return the tenants, most affected first."""
    return sorted(
        report.tenants, key=lambda name: (*(-count for count in _changed(report, name)), name or "")
    )


def _changed(report: SchemaTrialReport, tenant_id: str | None) -> tuple[int, int]:
    counts = report.tenants[tenant_id]
    return counts["stored_rejected"], counts["rejected_passing"]


def _tenant_row(report: SchemaTrialReport, tenant_id: str | None) -> dict[str, Any]:
    counts = report.tenants[tenant_id]
    row: dict[str, Any] = {"tenant_id": tenant_id}
    if report.stored is not None:
        row |= {"stored": counts["stored"], "would_be_rejected": counts["stored_rejected"]}
    if report.rejected is not None:
        row |= {"open_rejections": counts["rejected"], "would_pass": counts["rejected_passing"]}
    return row
