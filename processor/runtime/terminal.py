"""Fit output to the width of the terminal: wrap between words, and never cut a number, time, id or code.

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
"""Headings of columns that may be wrapped between words. Values of other columns are copied or compared."""

_WIDTH_MIN, _WIDTH_USUAL = 20, 78
_HYPHEN = "\u2011"
"""A non-breaking hyphen, for `--until-idle` and codes with a hyphen."""


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print lines for people, with control characters escaped."""
    click.echo(printable(text), err=err, nl=nl)


def screen_width() -> int | None:
    """Return the width of the terminal (COLUMNS has priority), or None if the output is not a terminal."""
    if not is_watched():
        return None
    return max(shutil.get_terminal_size().columns, _WIDTH_MIN)


def is_watched() -> bool:
    """Return whether standard output is a terminal. Output to a pipe or file is not wrapped."""
    return sys.stdout.isatty()


def fit(text: str, indent: str = "") -> str:
    """Return the text with long lines wrapped between words, and `indent` before continued lines."""
    width = screen_width()
    if width is None:
        return text
    return "\n".join(
        line if len(line) <= width else _wrapped(line, width, indent) for line in text.split("\n")
    )


def print_cells(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table of formatted cells."""
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
    """Print a table, or on a narrow terminal each row as lines of heading and value."""
    # With a height, because rich assumes 80 columns for a dumb terminal of unknown height.
    console = Console(file=sys.stdout, highlight=False, width=10**6, height=25)
    for column in table.columns:
        if column.no_wrap:
            # Else rich would shrink the column to its longest word.
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
    """Share the free width among wrapped columns; rich alone would cut words."""
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
    """A help formatter that does not wrap lines within `--until-idle`."""

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and meanings; below each other on a narrow terminal, because URLs are long."""
        kept = [(name, text.replace("-", _HYPHEN)) for name, text in rows]
        super().write_dl(kept, col_max if self.width >= _WIDTH_USUAL else _WIDTH_MIN // 2, col_spacing)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage line."""
        super().write_usage(prog, args.replace("-", _HYPHEN), prefix)

    def getvalue(self) -> str:
        """Return the whole help text."""
        return super().getvalue().replace(_HYPHEN, "-")
