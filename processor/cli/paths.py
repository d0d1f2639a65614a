"""The parameter type of paths."""

from typing import Any

import click


class NamedPath(click.Path):
    """A non-empty path. An unset shell variable would otherwise mean the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click has it
        """Convert like click.Path, but refuse the empty text."""
        if not str(value):
            self.fail("expected a path, and not the empty text", param, ctx)
        return super().convert(value, param, ctx)
