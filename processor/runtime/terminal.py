"""What is printed fits the screen: lines end between words, and no number, time, id or code is ever cut.

a table, while its columns fit ──▶ else a block per row: heading and value, one below the other
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

import click
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from processor.runtime.escaping import printable

PROSE = frozenset({"found", "what to do", "message", "what", "name"})
"""Headings of columns that may be wrapped, between words. All others hold what people copy or compare."""

_WIDTH_MIN, _WIDTH_USUAL = 20, 78
_HYPHEN = "\u2011"
"""One that no line is broken at: of `--until-idle` and of codes with a hyphen."""


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print lines for people: whatever is quoted in them, no terminal obeys it."""
    click.echo(printable(text), err=err, nl=nl)


def screen_width() -> int | None:
    """Give the columns of the screen, COLUMNS before what it says itself; None: nobody watches."""
    if not is_watched():
        return None
    return max(shutil.get_terminal_size().columns, _WIDTH_MIN)


def is_watched() -> bool:
    """Say whether standard output is a screen: what goes to a pipe or file keeps its lines whole."""
    return sys.stdout.isatty()


def fit(text: str, indent: str = "") -> str:
    """Give the text with lines wider than the screen wrapped between words, and `indent` before the rest."""
    width = screen_width()
    if width is None:
        return text
    return "\n".join(
        line if len(line) <= width else _wrapped(line, width, indent) for line in text.split("\n")
    )


def print_cells(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table of cells that are ready to be shown."""
    kept = list(rows)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for at, heading in enumerate(headings):
        words = [word for row in [headings, *kept] for word in row[at].split()] if heading in PROSE else []
        longest = max(map(cell_len, words), default=None)
        table.add_column(Text(heading), no_wrap=heading not in PROSE, min_width=longest, overflow="fold")
    for row in kept:
        table.add_row(*map(Text, row))
    print_fitting(table)


def print_fitting(table: Table) -> None:
    """Print a table, or where the screen is too narrow for it, each row as lines of heading and value."""
    # With a height, too: rich takes a dumb terminal of unknown height for one of 80 columns, and cuts.
    console = Console(file=sys.stdout, highlight=False, width=10**6, height=25)
    for column in table.columns:
        if column.no_wrap:
            # Else the longest word of it would do.
            column.min_width = max(cell_len(str(text)) for text in [column.header, *column.cells])
    needed = Measurement.get(console, console.options, table)
    console.width = screen_width() or needed.maximum
    if needed.minimum <= console.width:
        _share(table, console.width - needed.minimum)
        console.print(table)
        return
    if table.title:
        say(str(table.title))
    headings = [str(column.header) for column in table.columns]
    left = max(map(len, headings)) + 2
    for row in zip(*(map(str, column.cells) for column in table.columns), strict=True):
        for heading, cell in zip(headings, row, strict=True):
            line = f"{heading:<{left}}{cell}"
            click.echo(fit(line, " " * left) if heading in PROSE else line)
        click.echo()


def _share(table: Table, room: int) -> None:
    """Give each column that may be wrapped its part of the room; rich alone would cut words."""
    wrapped = [column for column in table.columns if not column.no_wrap and column.min_width is not None]
    wide = {
        id(column): max(cell_len(str(text)) for text in [column.header, *column.cells]) for column in wrapped
    }
    for left, column in zip(
        range(len(wrapped), 0, -1),
        sorted(wrapped, key=lambda column: wide[id(column)] - (column.min_width or 0)),
        strict=True,
    ):
        least = column.min_width or 0
        more = min(wide[id(column)] - least, room // left)
        column.width = least + more
        room -= more


def _wrapped(line: str, width: int, indent: str) -> str:
    wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, replace_whitespace=False)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return "\n".join(wrapper.wrap(line))


class HelpFormatter(click.HelpFormatter):
    """Help whose lines don't end within `--until-idle`."""

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and what they mean; on a narrow screen below each other, as URLs need room."""
        kept = [(name, text.replace("-", _HYPHEN)) for name, text in rows]
        super().write_dl(kept, col_max if self.width >= _WIDTH_USUAL else _WIDTH_MIN // 2, col_spacing)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of the usage."""
        super().write_usage(prog, args.replace("-", _HYPHEN), prefix)

    def getvalue(self) -> str:
        """Give all of it."""
        return super().getvalue().replace(_HYPHEN, "-")
