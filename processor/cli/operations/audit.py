"""processor audit."""

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
    """Audit for lost, duplicated and altered messages. Exit code 3, with the ids, if there are any.

    Without a manifest, the audit compares the tables with the queue's counts. With manifests, it looks for
    every message that the queue accepted. Messages that no manifest names are unexpected if a manifest has
    their tenant and producer; otherwise they are counted separately, as another producer's.
    """
    report = commands.run_audit(ConnectionSettings.load(), manifests)
    if as_json:
        print_json(report.as_dict())
    else:
        say(fit(report.text(), "      "))
    raise SystemExit(Exit.FINE if report.holds else Exit.PROBLEM_FOUND)


COMMANDS = [audit]
