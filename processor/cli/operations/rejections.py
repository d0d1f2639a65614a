"""processor rejection: list, replay and discard rejections."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from processor.cli.errors import Exit
from processor.cli.moments import Moment
from processor.cli.output import json_option, moment_of, print_json, print_rows
from processor.cli.registry.rejection_rules import rule
from processor.errors import NotFound, Reason
from processor.operations import reader
from processor.operations.reject_alarm import words
from processor.runtime.escaping import escaped
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings, RejectAlarmSettings, ReplaySettings
from processor.sources.quarantine import QuarantineSource, RejectionSelection, discard
from processor.wiring import commands, database, reject_alarm_limits

_REASONS = frozenset(reason.value for reason in Reason)
_CLOSED = {"duplicate": "duplicate", "redelivered": "had an outcome already"}

F = TypeVar("F", bound=Callable[..., Any])


def _selecting(command: F) -> F:
    for option in reversed(
        [
            click.option("--tenant", "tenant_id", help="The tenant that the sender named."),
            click.option("--queue", help="The name of the queue that they came from."),
            click.option("--event-type", help="The event type that the sender named."),
            click.option("--reason", type=click.Choice([reason.value for reason in Reason])),
            click.option(
                "--since", type=Moment(), help="Rejected at or after this time (RFC 3339; UTC if bare)."
            ),
            click.option("--until", type=Moment(), help="Rejected before this time."),
        ]
    ):
        command = option(command)
    return command


@click.group()
def rejection() -> None:
    """List, replay and discard rejections: invalid deliveries, kept whole with the reason.

    Inspect them (list, show, stats), fix the cause, then process them again (replay) or discard them
    (discard). Rejections are never discarded automatically, unless a rule matches (rule).
    """


rejection.add_command(rule)


@rejection.command("list")
@click.option(
    "--status", type=click.Choice(["open", "replayed", "discarded", "any"]), default="open", show_default=True
)
@_selecting
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
def rejection_list(status: str, limit: int, as_json: bool, **selected: Any) -> None:  # noqa: ANN401
    """List rejections, newest first."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.rejections(
            connection,
            RejectionSelection(**selected).parameters(),
            status=None if status == "any" else status,
            limit=limit,
        )
    shown = ["rejection_id", "rejected_at", "reason", "tenant_id", "event_type", "message_id", "message"]
    if any(row["first_rejected_at"] != row["rejected_at"] for row in rows):
        shown.insert(1, "first_rejected_at")
    print_rows(
        rows if as_json else [{name: row[name] for name in shown} for row in rows],
        as_json=as_json,
        empty="no such rejections",
    )


@rejection.command("show")
@click.argument("rejection_id", type=click.IntRange(1, 2**63 - 1))
@json_option
def rejection_show(rejection_id: int, as_json: bool) -> None:
    """Show one rejection with its reason, sender and body."""
    with database(DatabaseSettings.load()) as connection:
        row = reader.rejection(connection, rejection_id)
    if as_json:
        print_json(row)
        return
    body = row.pop("body")
    detail = row.pop("detail")
    for name, value in row.items():
        click.echo(f"{name:17} {'-' if value is None else escaped(str(value))}")
    say("detail")
    print_json(detail)
    whole = "" if row["body_bytes"] is None else f", the first of {row['body_bytes']}"
    say(f"body ({len(body)} bytes{whole})")
    say(bytes(body).decode("utf-8", "surrogateescape"))
    if row["body_bytes"] is None and (row["status"] == "open" or _is_ruled(row)):
        kept = "" if row["status"] == "open" else "While it is kept, a day at least. "
        say(f"\n{kept}Once the cause is mended: processor rejection replay {rejection_id}")


@rejection.command("stats")
@_selecting
@json_option
def rejection_stats(as_json: bool, **selected: Any) -> None:  # noqa: ANN401 - the options of _selecting
    """Count rejections by status, reason, tenant and event type, and list current alarms.

    An alarm means that REJECT_ALARM_SHARE of one tenant's events of one type were rejected within the last
    REJECT_ALARM_WINDOW_S, whatever is selected. With --json the alarms go to standard error.
    """
    settings = RejectAlarmSettings.load()
    limits = reject_alarm_limits(settings)
    with database(settings) as connection:
        rows = reader.rejection_stats(connection, RejectionSelection(**selected).parameters())
        alarms = reader.reject_alarms(connection, limits)
    print_rows(rows, as_json=as_json, empty="no rejections")
    if alarms is None:
        say("alarm: too much was stored lately to count shares; see processor_reject_alarms", err=True)
    for pair, rejected, deliveries in alarms or ():
        say(words(pair, rejected, deliveries, limits.window_s), err=as_json)


@rejection.command("replay")
@click.argument("rejection_ids", nargs=-1, type=click.IntRange(1, 2**63 - 1))
@_selecting
@click.option(
    "--all", "everything", is_flag=True, help="Every open rejection; needed where nothing else selects."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only judge them again, and save nothing; a duplicate or an id_conflict does not show.",
)
@click.option("--force", is_flag=True, help="Replay those too that are left out for their age (see above).")
@json_option
def rejection_replay(
    rejection_ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **selected: Any,  # noqa: ANN401 - the options of _selecting
) -> None:
    """Replay open rejections through the same pipeline, under their original delivery ids.

    A rejection that is stored now, or is a duplicate, is closed as replayed; one that is rejected again stays
    open with the present reason. The replay is idempotent, and safe beside a running processor. Exit code 1
    if any rejection stays open, or if one named by its id is closed already.

    Rejections discarded by a rule are replayed if named by id, and are open if rejected again. Rejections
    discarded by a person stay discarded.

    Events that may have been stored already, as a message that retention has removed, are skipped: they would
    count twice. Once retention has removed a message, these are the rejections first made more than
    KEY_RETENTION_DAYS ago, and those without a readable key. Make sure that they were not stored, then add
    --force.
    """
    selection = _selection(rejection_ids, everything=everything, selected=selected)
    closed = [row for row in _named(rejection_ids) if row["status"] != "open" and not _is_ruled(row)]
    settings = ReplaySettings.load()
    outcomes, left_out = commands.replay(settings, selection, dry_run=dry_run, forced=force)
    with database(settings) as connection:
        cut = QuarantineSource(connection, selection).count_cut()
    if as_json:
        more = {"cut": cut} if cut else {}
        print_json({"dry_run": dry_run, "outcomes": outcomes, "left_out": left_out} | more)
    elif not outcomes and not left_out and not cut:
        say("no open rejections are selected")
    else:
        say(("would be: " if dry_run else "") + _summary(outcomes))
    _say_closed(closed)
    if left_out:
        say(
            f"processor: left out {left_out} rejection(s) whose message may be among those that retention "
            "removed since (after KEY_RETENTION_DAYS, or their key can't be read): stored another way "
            "before, it would count twice. If it was not: --force",
            err=True,
        )
    if cut:
        say(
            f"processor: {cut} rejection(s) keep the head of their body alone, since there was no room "
            "(STORAGE_REJECTED_BYTES), and can't be replayed: have them sent again, then discard these",
            err=True,
        )
    refused = left_out or cut or any(outcome in _REASONS for outcome in outcomes)
    raise SystemExit(Exit.FAILED if closed or (refused and not dry_run) else Exit.FINE)


def _summary(outcomes: Mapping[str, int]) -> str:
    """Summarize the outcomes of a replay, such as "1 stored, 2 still open (2 unknown_tenant)"."""
    still_open = {name: count for name, count in sorted(outcomes.items()) if name in _REASONS}
    parts = [f"{outcomes.get('stored', 0)} stored"]
    parts += [f"{outcomes[name]} {words}" for name, words in _CLOSED.items() if outcomes.get(name)]
    reasons = ", ".join(f"{count} {name}" for name, count in still_open.items())
    parts.append(f"{sum(still_open.values())} still open" + (f" ({reasons})" if reasons else ""))
    return ", ".join(parts)


@rejection.command("discard")
@click.argument("rejection_ids", nargs=-1, type=click.IntRange(1, 2**63 - 1))
@_selecting
@click.option(
    "--all", "everything", is_flag=True, help="Every open rejection; needed where nothing else selects."
)
@click.option("--dry-run", is_flag=True, help="Only count them.")
def rejection_discard(
    rejection_ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    **selected: Any,  # noqa: ANN401 - the options of _selecting
) -> None:
    """Discard open rejections: the rows stay, with the status discarded.

    Exit code 1 if a rejection named by its id was replayed already.
    """
    selection = _selection(rejection_ids, everything=everything, selected=selected)
    closed = [row for row in _named(rejection_ids) if row["status"] != "open"]
    with database(DatabaseSettings.load()) as connection:
        if dry_run:
            rows = reader.rejection_stats(connection, selection.parameters())
            count = sum(row["count"] for row in rows if row["status"] == "open")
        else:
            count = discard(connection, selection)
    say(f"{count} rejection(s) {'would be ' if dry_run else ''}discarded")
    _say_closed(closed)
    raise SystemExit(Exit.FAILED if any(row["status"] == "replayed" for row in closed) else Exit.FINE)


def _is_ruled(row: Mapping[str, Any]) -> bool:
    return row["status"] == "discarded" and row["rule_id"] is not None


def _say_closed(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in sorted(rows, key=lambda row: int(row["rejection_id"])):
        who = f" by rule {row['rule_id']}" if _is_ruled(row) else ""
        was = f"was {row['status']} already{who}, at {moment_of(row['closed_at'])}"
        say(f"processor: rejection {row['rejection_id']} {was}", err=True)


def _named(rejection_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the named rejections. Raises NotFound if one does not exist."""
    if not rejection_ids:
        return []
    with database(DatabaseSettings.load()) as connection:
        named = RejectionSelection(rejection_ids=rejection_ids).parameters()
        rows = reader.rejections(connection, named, status=None, limit=len(rejection_ids))
    missing = sorted(set(rejection_ids) - {row["rejection_id"] for row in rows})
    if missing:
        numbers = ", ".join(str(number) for number in missing[:10])
        raise NotFound(f"no rejection {numbers}; `processor rejection list --status any` shows what there is")
    return rows


def _selection(
    rejection_ids: tuple[int, ...], *, everything: bool, selected: dict[str, Any]
) -> RejectionSelection:
    if not (rejection_ids or everything or any(value is not None for value in selected.values())):
        raise click.UsageError(
            "nothing is selected; name rejection ids, or select by an option, or say --all"
        )
    return RejectionSelection(rejection_ids=rejection_ids or None, **selected)


COMMANDS = [rejection]
