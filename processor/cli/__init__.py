"""The command line: options, help, output, and exit codes of errors.

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


_FAMILIES = {
    "Core": (
        service,
        tenants,
        schemas,
        queues,
        rejections,
        dead_letters,
        trace,
        audit,
        retention,
        settings,
    ),
    "Usage": (meters, totals, counter),
    "Hand-over": (dispatch, windows, reconcile),
    "Gateway": (keys,),
    "Development": (stack,),
}


class _Sections(Commands):
    """The top-level group: lists its commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per kind of command."""
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for title, families in _FAMILIES.items():
            commands = [command for family in families for command in family.COMMANDS]
            with formatter.section(title):
                formatter.write_dl(
                    [(str(command.name), command.get_short_help_str(width)) for command in commands]
                )


@click.group(
    cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="sqs-event-processor", prog_name="processor")
def cli() -> None:
    """Consume events from SQS, validate them, store each once in PostgreSQL, then delete it from the queue.

    Settings come from the environment or from .env; `processor settings --template` explains each.
    `processor dev` starts a local PostgreSQL and SQS to try it with; `processor check` reports the
    problems of a deployment.

    Exit codes: 0 fine, 1 failed, 2 usage, 3 a check found a problem, 4 a dependency can't be reached.
    """
    # Only `run` follows LOG_FORMAT and LOG_LEVEL; the other commands print for people.
    logs.configure("console", "WARNING")


for _families in _FAMILIES.values():
    for _family in _families:
        for _command in _family.COMMANDS:
            cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    run(cli, "processor")
