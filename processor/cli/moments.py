"""The parameter types of the command line for times and durations."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LENGTH = re.compile(r"([0-9]{1,8})([smhd])")


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time; without a zone it is UTC, and a bare date means midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Parse the time, or fail with the expected form."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time; expected such as 2026-11-22 or 2026-11-22T10:00:00Z", param, ctx
            )
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Length(click.ParamType[timedelta]):
    """A duration: a whole number and its unit, s, m, h or d."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401
        """Parse the duration, or fail with the expected form."""
        if isinstance(value, timedelta):
            return value
        found = _LENGTH.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is no length of time; expected such as 90s, 15m, 1h or 92d", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


class Limit(click.ParamType[timedelta | None]):
    """A duration, or none."""

    name = "length|none"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta | None:
        """Parse the duration; `none` is None."""
        return None if value in (None, "none") else Length().convert(value, param, ctx)


class Since(click.ParamType[datetime]):
    """A time, or a duration before now."""

    name = "time|length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Parse either; a duration is subtracted from now."""
        if isinstance(value, str) and _LENGTH.fullmatch(value):
            return datetime.now(UTC) - Length().convert(value, param, ctx)
        return Moment().convert(value, param, ctx)
