"""processor usage reconcile: compare with the sink after a restore."""

from pathlib import Path

import click

from processor.cli.errors import Exit
from processor.cli.output import json_option, print_json
from processor.cli.usage.totals import usage
from processor.handover.reconcile import FINDINGS, Choice, Reconciled
from processor.runtime.escaping import escaped
from processor.runtime.terminal import fit, say
from processor.settings import DatabaseSettings
from processor.usage.selection import Row
from processor.wiring import usage as wiring

_LISTED_MAX = 20

_ADVICE = {
    "missing_there": "--send-again sends them again; --partial if FILE is a part of what the sink has",
    "of_nobody": "add the tenant or the meter again, as it was; --leave-unknown if it is gone for good",
    "of_earlier_life": (
        "--leave-earlier if one by that name was erased or deleted before, so that nothing of it is taken"
        " back; --bring-in-earlier if it is the same one; if there are some of each, take those to leave out"
        " of FILE"
    ),
    "key_of_another": "look at both; the sink and these tables can't both be right",
}


@usage.command("reconcile")
@click.argument("file", metavar="FILE|-", required=False)
@click.option(
    "--nothing-lost", is_flag=True, help="Instead of FILE: this database lacks no line that was handed over."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--send-again", is_flag=True, help="Send lines again that are marked here and that FILE lacks.")
@click.option(
    "--partial", is_flag=True, help="FILE is a part of what the sink has: what it lacks is no finding."
)
@click.option(
    "--leave-unknown", is_flag=True, help="Leave out lines of tenants and meters that are not here."
)
@click.option(
    "--leave-earlier",
    is_flag=True,
    help="Leave out lines of before their tenant or meter was added: they are of an erased one of that name.",
)
@click.option(
    "--bring-in-earlier",
    is_flag=True,
    help="Bring in lines of before their tenant or meter was added: it is the same one.",
)
@json_option
def usage_reconcile(file: str | None, nothing_lost: bool, as_json: bool, **choices: bool) -> None:
    """Reconcile this database with the sink after a restore, copy or failover.

    FILE has the lines that the sink received: JSON objects, one object or one array per line of text. Lines
    that this database lacks are imported as handed over, under their keys, and their windows close again:
    then only the difference to the messages is handed over. The command prints these differences; a negative
    one reduces the billed amount. Afterwards `processor dispatch` continues. Stop it first. The command is
    idempotent.

    The changes are atomic: exit code 3, with the findings, if lines need a decision. After a failover without
    loss (a synchronous standby) --nothing-lost is sufficient.
    """
    if (file is None) == (not nothing_lost):
        raise click.UsageError("expected either FILE (or -) or --nothing-lost")
    if choices["leave_earlier"] and choices["bring_in_earlier"]:
        raise click.UsageError("expected one of --leave-earlier and --bring-in-earlier")
    settings = DatabaseSettings.load()
    if file is None:
        place = wiring.run_nothing_lost(settings)
        _print_place(place, as_json=as_json)
        return
    choice = Choice(**choices)
    done = wiring.run_reconcile(settings, None if file == "-" else Path(file), choice)
    if as_json:
        print_json(
            {
                "dry_run": choice.dry_run,
                "lines": done.counts,
                "examples": done.examples,
                "difference_count": done.difference_count,
                "negative_count": done.negative_count,
                "differences": done.differences,
                "open": done.open_findings,
                "place": done.place,
            }
        )
    else:
        _print(done, choice)
    raise SystemExit(Exit.PROBLEM_FOUND if done.open_findings else Exit.FINE)


def _print(done: Reconciled, choice: Choice) -> None:
    for finding, words in FINDINGS.items():
        if not done.counts[finding]:
            continue
        say(f"{done.counts[finding]} line(s) {words}")
        _print_rows([row for row in done.examples if row["finding"] == finding])
    if not any(done.counts.values()):
        say("no lines, neither here nor there")
    if done.difference_count:
        sends = "would send" if done.place is None else "will send"
        say(
            f"unless events are stored before, `processor dispatch` {sends} {done.difference_count}"
            f" difference(s) to what the sink has, {done.negative_count} of them negative:"
        )
        _print_rows(done.differences)
    for finding in done.open_findings:
        say(f"decide about the lines {FINDINGS[finding]}: {_ADVICE[finding]}", err=True)
    if done.open_findings:
        say("nothing was changed", err=True)
    elif choice.dry_run:
        say("dry run: nothing was changed")
    elif done.place is not None:
        _print_place(done.place, as_json=False)


def _print_rows(rows: list[Row]) -> None:
    for row in rows[:_LISTED_MAX]:
        told = (f"{name}={value}" for name, value in row.items() if name != "finding")
        click.echo(fit(escaped("  " + "  ".join(told)), "    "))


def _print_place(place: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"place": place})
    else:
        say(f"lines are handed over from here now: {place}")


COMMANDS: list[click.Command] = []
"""None of its own: it is a subcommand of `usage`."""
