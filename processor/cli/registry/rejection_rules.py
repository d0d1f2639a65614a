"""processor rejection rule: discard known noise automatically."""

from collections.abc import Sequence
from typing import Any

import click

from processor.cli.output import json_option, moment_of, print_rows
from processor.errors import Reason
from processor.operations import reader
from processor.operations import registry as registry_changes
from processor.operations.queue_rules import require_name
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings
from processor.wiring import database

_NEVER = (Reason.ID_CONFLICT, Reason.UNSTORABLE, Reason.DEAD_LETTERED)
"""Reasons found by the database, or without a parsed body, can't be known noise."""


@click.group()
def rule() -> None:
    """Add, list and remove rules that discard matching rejections automatically.

    A discarded rejection is counted (rule list, rejection stats, audit, processor_discarded_by_rule) and
    raises no alarm. The first `processor retention apply` after a day removes it, whatever retention is set;
    until then `processor rejection replay ID` replays it.
    """


@rule.command("add")
@click.option(
    "--reason",
    required=True,
    type=click.Choice([reason.value for reason in Reason if reason not in _NEVER]),
    help="The reason that such rejections have.",
)
@click.option("--queue", help="The queue that they come from.")
@click.option("--tenant", "tenant_id", help="The tenant that they claim, registered or not.")
@click.option("--event-type", help="The event type that they claim.")
@click.option(
    "--when",
    "conditions",
    metavar="POINTER=VALUE",
    multiple=True,
    help="A value in the body as it came, such as /Event=s3:TestEvent; repeatable. VALUE is JSON where it is "
    "a number, a boolean or a text in quotes (1, 1.0 and 1e0 are equal), else the text as it stands. So the "
    "text 1 is '/n=\"1\"', and the empty text '/a=\"\"'.",
)
def rule_add(conditions: Sequence[str], **said: Any) -> None:  # noqa: ANN401 - the options above
    """Add a rule: a reason and at least one more condition. All of them must match.

    The rule applies to new rejections. To discard open ones, use processor rejection discard.
    """
    if said["queue"] is not None:
        require_name(said["queue"])
    pairs = [condition.partition("=") for condition in conditions]
    if any(not equals for _, equals, _ in pairs):
        raise click.UsageError("--when: expected POINTER=VALUE, such as /Event=s3:TestEvent")
    if len({at for at, _, _ in pairs}) < len(pairs):
        raise click.UsageError("--when: one value for each pointer; for another value add another rule")
    with database(DatabaseSettings.load()) as connection:
        rule_id = registry_changes.add_rejection_rule(
            connection, conditions={at: value for at, _, value in pairs}, **said
        )
    say(f"rule {rule_id} added; processor rejection rule remove {rule_id} takes it back")


@rule.command("list")
@json_option
def rule_list(as_json: bool) -> None:
    """List the rules with count and last time of discarded rejections; removed rules last."""
    with database(DatabaseSettings.load()) as connection:
        rows = reader.rejection_rules(connection)
    if not as_json:
        for row in rows:
            row["conditions"] = " ".join(f"{at}={value}" for at, value in row["conditions"].items()) or None
    print_rows(rows, as_json=as_json, empty="no rules; processor rejection rule add --help")


@rule.command("remove")
@click.argument("rule_id", type=click.IntRange(1, 2**63 - 1))
def rule_remove(rule_id: int) -> None:
    """Remove a rule: it matches no new rejection. The list still shows it, since rejections refer to it."""
    with database(DatabaseSettings.load()) as connection:
        before = registry_changes.retire_rejection_rule(connection, rule_id)
    if before:
        say(f"rule {rule_id} was removed before, at {moment_of(before)}")
    else:
        say(f"rule {rule_id} removed; what it discarded stays discarded")
