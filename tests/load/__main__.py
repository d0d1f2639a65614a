"""The commands of the load tests: `python -m tests.load bench`, and each of its parts alone."""

from typing import Any

import click

from processor.cli.errors import Commands
from processor.devstack.interrupts import Interrupted, interrupts
from tests.load import report
from tests.load.contestants import everybody
from tests.load.ground import TOOLS, open_ground
from tests.load.race import race


class LoadCommands(Commands):
    """Commands whose every failure is one line; nothing that they started is left, whatever ends them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interrupts():
                return super().invoke(ctx)
        except Interrupted as told:
            click.echo("\nstopped; nothing is left running", err=True)
            ctx.exit(told.exit_code)


@click.group(cls=LoadCommands, context_settings={"max_content_width": 110})
def main() -> None:
    """Measure how fast, how dear and how late, side by side with what people use today."""


queue_option = click.option(
    "--queue",
    type=click.Choice(["own", "fauxqs"]),
    default="own",
    show_default=True,
    help="The queue server: the project's own, or fauxqs from npm.",
)
port_option = click.option(
    "--port", type=click.IntRange(1, 65_535), help="The queue server's port; any free one without it."
)


@main.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--messages", type=click.IntRange(100, 1_000_000), default=20_000, show_default=True)
@click.option("--only", multiple=True)
@queue_option
@port_option
def drain(rounds: int, messages: int, only: tuple[str, ...], queue: Any, port: int | None) -> None:
    """Let each contestant in turn drain a queue into the table, in several rounds."""
    contestants = [c for c in everybody(TOOLS) if not only or any(word in c.name for word in only)]
    with open_ground(queue, port) as ground:
        result = race(ground, contestants, rounds, messages)
    report.print_race(result)


if __name__ == "__main__":
    main()
