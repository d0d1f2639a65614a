"""Paths on the command line."""

from typing import Any

import click


class NamedPath(click.Path):
    """A path that is not the empty text: an unset variable would else mean the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click has it
        """Take a path as click does."""
        if not str(value):
            self.fail("expected a path, and not the empty text", param, ctx)
        return super().convert(value, param, ctx)
