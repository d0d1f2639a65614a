"""processor schema lint."""

from dataclasses import asdict
from typing import Any, BinaryIO

import click

from processor.cli.errors import Exit
from processor.cli.output import json_option, print_json
from processor.runtime.escaping import escaped
from processor.runtime.terminal import fit, say
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import read_schema, schema_options
from processor.schemas.judge.client import require_usable
from processor.schemas.lint.linting import Remark, lint
from processor.schemas.schema_text import schema_text
from processor.schemas.wording import shortened

_SHOWN_MAX = 20
_POINTER_MAX = 200


@click.command("lint")
@click.argument("file", type=click.File("rb"))
@schema_options
@json_option
def schema_lint(file: BinaryIO, *, how: HowToRead, as_json: bool) -> None:
    """Lint the JSON Schema in FILE (or -), offline: typos, and rules without effect.

    A warning means that the schema probably accepts or refuses other payloads than intended; the exit code is
    3 then, and `schema publish --strict` publishes nothing. A note is only information. An unusable schema is
    refused with exit code 2, as by `schema publish`.
    """
    remarks = _remarks(read_schema(file, how), how)
    if as_json:
        print_json([asdict(remark) for remark in remarks])
    else:
        _say_all(remarks)
        say(_counted(remarks))
    raise SystemExit(Exit.PROBLEM_FOUND if _warnings(remarks) else Exit.FINE)


def check_by_linter(definition: Any, how: HowToRead, *, strict: bool) -> None:  # noqa: ANN401 - any JSON value
    """Print the warnings of a schema before it is published; with `strict`, a warning ends with code 3."""
    warnings = _warnings(_remarks(definition, how))
    _say_all(warnings, err=True)
    if warnings and strict:
        say(f"nothing was published: {_number(len(warnings), 'warning')}, and --strict was given", err=True)
        raise SystemExit(Exit.PROBLEM_FOUND)


def _remarks(definition: Any, how: HowToRead) -> list[Remark]:  # noqa: ANN401 - any JSON value
    require_usable(schema_text(definition), how.formats)
    return lint(definition)


def _warnings(remarks: list[Remark]) -> list[Remark]:
    return [remark for remark in remarks if remark.level == "warning"]


def _say_all(remarks: list[Remark], *, err: bool = False) -> None:
    for remark in remarks[:_SHOWN_MAX]:
        more = f" (and at {_number(remark.places - 1, 'other place')})" if remark.places > 1 else ""
        at = shortened(remark.pointer, _POINTER_MAX) or "(root)"
        click.echo(fit(escaped(f"{remark.level}: at {at}: {remark.message}{more}"), "  "), err=err)
    if len(remarks) > _SHOWN_MAX:
        say(f"… and {len(remarks) - _SHOWN_MAX} more; processor schema lint --json shows them all", err=err)


def _counted(remarks: list[Remark]) -> str:
    warnings = len(_warnings(remarks))
    return f"{_number(warnings, 'warning')}, {_number(len(remarks) - warnings, 'note')}"


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
