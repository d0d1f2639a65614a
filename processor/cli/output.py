"""The output of commands: tables for people, JSON for programs."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import click
import msgspec

from processor.runtime.escaping import escaped, json_escaped
from processor.runtime.terminal import print_cells, say

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one JSON value, indented; moments in RFC 3339, bytes as base64, control characters escaped."""
    # Not orjson: its integers end at 64 bits, those of the tables do not.
    click.echo(json_escaped(json.dumps(value, default=_json_default, indent=2, ensure_ascii=False)))


def print_json_text(text: str) -> None:
    """Print a JSON text, indented, with all its digits and control characters escaped."""
    with suppress(RecursionError):
        text = msgspec.json.format(text, indent=2)
    click.echo(json_escaped(text))


def json_text(row: Mapping[str, Any]) -> str:
    """Encode a row as JSON like `print_json`; msgspec.Raw values stay unchanged."""
    moments = {name: _json_default(value) for name, value in row.items() if isinstance(value, datetime)}
    return msgspec.json.encode({**row, **moments}).decode()


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows of one shape as JSON array or table; `empty` is the text without rows."""
    if as_json:
        print_json(list(rows))
    elif not rows:
        say(empty)
    else:
        print_table(list(rows[0]), [row.values() for row in rows])


def print_table(headings: Sequence[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    """Print a table; on a narrow screen, one block per row."""
    print_cells(headings, [[_cell(value) for value in row] for row in rows], title)


def moment_of(value: datetime) -> str:
    """Format a time for people, in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _cell(value: Any) -> str:  # noqa: ANN401 - any column
    if value is None:
        return "-"
    text = moment_of(value) if isinstance(value, datetime) else str(value)
    # The text may come from a sender.
    return escaped(text)


def _json_default(value: Any) -> Any:  # noqa: ANN401 - whatever json does not know
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)
