"""processor settings: the settings in force, and a template of all."""

import click

from processor.cli.output import json_option, print_json, print_table
from processor.runtime.terminal import say
from processor.settings import Settings
from processor.settings.loading import template
from processor.settings.shown import in_force


@click.command()
@click.option(
    "--template", "as_template", is_flag=True, help="Print every setting with its purpose and default."
)
@json_option
def settings(as_template: bool, as_json: bool) -> None:
    """Print the settings in force and their origins, without secrets and passwords in URLs.

    `processor settings --template > .env` makes a file to fill in: every line is a comment.
    """
    if as_template:
        say(template(), nl=False)
        return
    rows = list(in_force(Settings.load()))
    if as_json:
        print_json(rows)
    else:
        print_table(["setting", "value", "from"], [row.values() for row in rows])


COMMANDS = [settings]
