"""The `producers` command and its subcommands."""

import logging
import sys
from typing import Any

import click

from processor.errors import ProcessorError, SettingsError, Unavailable
from processor.runtime.escaping import escaped
from processor.runtime.logs import silence_libraries
from processor.runtime.terminal import HelpFormatter, fit
from producers.cli import fake, load, send, validate
from producers.cli.sending import EXIT_REFUSED
from producers.gateway.cli import gateway

EXIT_USAGE, EXIT_UNAVAILABLE = 2, 4

click.Context.formatter_class = HelpFormatter


class _Commands(click.Group):
    """Prints an error in one line, and exits with the code of its kind."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        try:
            return super().invoke(ctx)
        except ProcessorError as error:
            line = f"producers: {escaped(str(error))}"
            click.echo(fit(line, "  ") if sys.stderr.isatty() else line, err=True)
            if isinstance(error, SettingsError):
                ctx.exit(EXIT_USAGE)
            ctx.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_REFUSED)


class _OneLine(logging.Formatter):
    """Writes a warning as one line, even if it quotes a server's text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        record.message = escaped(record.message)
        return super().formatMessage(record)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="sqs-event-processor", prog_name="producers")
def main() -> None:
    """Put events on the queue that the processor reads, over SQS or another protocol (--to).

    The queue and the way to it come from the environment or from .env, as every AWS tool reads them:
    SQS_QUEUE_URL, AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. With
    LOCALSTACK_HOST set, the client is localstack-client's.

    \b
    Exit codes: 0 all accepted           1 something was refused or not sent
                2 bad usage or settings  4 the queue can't be reached
                3 `validate` found a message that would be rejected
                130 Ctrl-C (143 SIGTERM), after the report of what was done
    """  # noqa: D301 - click's mark for lines to be left as they are
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("producers: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    silence_libraries()


for family in (fake, send, load, validate):
    for command in family.COMMANDS:
        main.add_command(command)
main.add_command(gateway)
