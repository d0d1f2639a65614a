"""How times and lengths of time are written on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LENGTH = re.compile(r"([0-9]{1,8})([smhd])")


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time; one without a zone is taken as UTC, a bare date as its midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Read the time, or fail with the form that is expected."""
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
    """A length of time: a whole number and its unit, s, m, h or d."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401
        """Read the length, or fail with the form that is expected."""
        if isinstance(value, timedelta):
            return value
        found = _LENGTH.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is no length of time; expected such as 90s, 15m, 1h or 92d", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


class Limit(click.ParamType[timedelta | None]):
    """A length of time, or none."""

    name = "length|none"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta | None:
        """Read the length; `none` is None."""
        return None if value in (None, "none") else Length().convert(value, param, ctx)


class Since(click.ParamType[datetime]):
    """A time, or how long ago it was."""

    name = "time|length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Read either; a length is counted back from now."""
        if isinstance(value, str) and _LENGTH.fullmatch(value):
            return datetime.now(UTC) - Length().convert(value, param, ctx)
        return Moment().convert(value, param, ctx)
