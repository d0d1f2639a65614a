"""The commands: options, help, output, and exit codes of errors.

0 fine   1 failed   2 usage   3 a check found a problem   4 a dependency can't be reached
"""

import click

from processor.cli import service, settings, stack
from processor.cli.errors import Commands
from processor.cli.operations import audit, dead_letters, rejections, retention, trace
from processor.cli.registry import keys, queues, schemas, tenants
from processor.cli.usage import counter, dispatch, meters, reconcile, totals, windows
from processor.runtime import logs
from processor.runtime.start import run
from processor.runtime.terminal import HelpFormatter

click.Context.formatter_class = HelpFormatter


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sqs-event-processor", prog_name="processor")
def cli() -> None:
    """Take events from SQS, validate them, write each once to PostgreSQL, then delete it from the queue.

    Settings come from the environment or from .env; `processor settings --template` explains each.
    `processor dev` gives you a PostgreSQL and an SQS to play with, `processor check` says what a
    deployment lacks.

    Exit codes: 0 fine, 1 failed, 2 usage, 3 a check found a problem, 4 a dependency can't be reached.
    """
    # `run` follows LOG_FORMAT and LOG_LEVEL; every other command speaks to a person.
    logs.configure("console", "WARNING")


for family in (
    stack,
    service,
    tenants,
    schemas,
    queues,
    keys,
    meters,
    rejections,
    dead_letters,
    trace,
    audit,
    reconcile,
    retention,
    totals,
    windows,
    dispatch,
    counter,
    settings,
):
    for command in family.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run the command line."""
    run(cli, "processor")
