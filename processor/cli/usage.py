"""What the meters have counted: processor usage."""

import click


@click.group()
def usage() -> None:
    """Usage: what the meters have counted, by tenant, window and group."""


COMMANDS = [usage]
