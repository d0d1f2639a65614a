"""`commands.md`: every command with its usage, help and options, from click's tree."""

import inspect
import re
from collections.abc import Iterator

import click

from processor.cli import cli as processor
from producers.cli import main as producers
from tests.reference import MARK, cell

_UNTOUCHED = "\b\n"
"""Click's mark before a paragraph whose lines are left as they are."""


def tree(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """Give a command and all below it, each in the context that knows its whole name."""
    yield context
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from tree(child, click.Context(child, info_name=name, parent=context))


def contexts() -> Iterator[click.Context]:
    """Give every command of both programs."""
    for name, root in (("processor", processor), ("producers", producers)):
        yield from tree(root, click.Context(root, info_name=name))


def commands_page() -> str:
    """Write the page."""
    parts = [
        MARK.format(source="the commands' own help"),
        "# Commands\n",
        "`--help` prints the same. See also [settings](settings.md) and [exit codes](exit-codes.md).\n",
        "In a checkout `. .venv/bin/activate` puts both commands on the PATH.\n",
    ]
    for context in contexts():
        parts += _section(context)
    return "\n".join(parts)


def _section(context: click.Context) -> Iterator[str]:
    command = context.command
    level = "##" if context.parent is None else "###"
    yield f"{level} {context.command_path}\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith(_UNTOUCHED):
            yield f"```\n{paragraph.removeprefix(_UNTOUCHED)}\n```\n"
        else:
            yield _prose(paragraph.replace("\n", " ")) + "\n"
    if isinstance(command, click.Group):
        children = sorted(command.commands)
        links = [f"[{name}](#{context.command_path} {name})".replace(" ", "-") for name in children]
        yield f"Commands: {', '.join(links)}.\n"
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{cell(names)}` | {cell(_prose(meaning))} |" for names, meaning in filter(None, records)]
    if rows:
        yield "\n".join(["| option | meaning |", "| --- | --- |", *rows]) + "\n"


def _prose(text: str) -> str:
    """Escape what Markdown would take for markup, but for code in backticks."""
    spans = re.split(r"(`[^`]*`)", text)
    return "".join(span if span.startswith("`") else re.sub(r"([<*])", r"\\\1", span) for span in spans)
