"""The proof: processor audit."""

from pathlib import Path

import click

from processor.cli.errors import Exit
from processor.cli.output import json_option, print_json
from processor.runtime.terminal import fit, say
from processor.settings import ConnectionSettings
from processor.wiring import commands


@click.command()
@click.option(
    "--manifest",
    "manifests",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="What a producer wrote of what it sent; may be given several times, one for each producer.",
)
@json_option
def audit(manifests: tuple[Path, ...], as_json: bool) -> None:
    """Prove that nothing was lost, doubled or altered. Exit code 3, and the ids, if anything was.

    Without a manifest: what the tables and the queue's counts can prove by themselves. With one: every
    message that the queue accepted is looked for, one by one. What none of them names counts as unexpected
    where they speak of its tenant and producer, and apart, as another producer's, where they don't.
    """
    report = commands.run_audit(ConnectionSettings.load(), manifests)
    if as_json:
        print_json(report.as_dict())
    else:
        say(fit(report.text(), "      "))
    raise SystemExit(Exit.FINE if report.holds else Exit.PROBLEM_FOUND)


COMMANDS = [audit]
