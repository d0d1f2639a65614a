"""The command `producers validate`: what would become of messages, told before anything is sent."""

import textwrap
from typing import Any, BinaryIO

import click
import orjson

from processor.errors import SettingsError
from processor.escaping import escaped, json_escaped
from processor.settings import UNWRAPS, Settings
from processor.terminal import say

EXIT_BAD = 3
_BYTES_MAX = 64 * 1024 * 1024
_WIDTH, _INDENT = 80, 2
_GOOD = ("stored", "read")


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--queue", metavar="NAME", help="Read them by the rules of this queue (processor queue).")
@click.option(
    "--map", "maps", metavar="FIELD=/POINTER", multiple=True, help="Where bodies have FIELD; repeatable."
)
@click.option("--unwrap", type=click.Choice(UNWRAPS), help="Whose envelopes to take off, the outer first.")
@click.option("--tenant", metavar="NAME", help="The one tenant whose events the queue carries.")
@click.option("--event-type", metavar="TYPE", help="The type of its events, which need not name it.")
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="An attribute beside each body; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each message.")
def validate(
    *,
    file: BinaryIO,
    queue: str | None,
    maps: tuple[str, ...],
    unwrap: str | None,
    tenant: str | None,
    event_type: str | None,
    attributes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tell what would become of each message of FILE (- is standard input). Nothing is sent or saved.

    FILE has one message a line, or is one JSON document. Each message is read as the processor would read it:
    by the options here, then by the queue's rules in the registry, then by the settings. With DATABASE_URL it
    is judged by the registry's tenants and schemas too; without, by its form alone. A duplicate or an
    id_conflict shows only when a message is saved.

    \b
    producers validate events.ndjson --map tenant_id=/client_id \\
      --map event_type=/event_type --map payload=/message

    Exit code 3 if any message would be rejected.
    """  # noqa: D301 - click's mark for lines to be left as they are
    # Nothing else of this program knows of a database, so that it starts as fast without.
    from processor.wiring.trial import Said, Trial  # noqa: PLC0415

    beside = dict(_named(attribute) for attribute in attributes)
    trial = Trial(Settings.load(), queue, Said(maps, unwrap, tenant, event_type))
    messages, bad = _messages(file), 0
    for place, body in messages:
        row = {"message_at": place} | trial.judge(body, beside)
        bad += row["verdict"] not in _GOOD
        click.echo(_json(row) if as_json else _words(row))
    if not as_json:
        known = (
            "by their form alone, since DATABASE_URL is not set"
            if trial.by_form
            else f"on queue {trial.queue}"
            + ("" if trial.has_rules else ", which has no rules in the registry")
        )
        say(f"{len(messages)} message(s), {len(messages) - bad} good, {bad} bad; {known}")
    raise SystemExit(EXIT_BAD if bad else 0)


def _named(attribute: str) -> tuple[str, str]:
    name, equals, value = attribute.partition("=")
    if not name or not equals:
        raise SettingsError(f"--attribute {attribute[:64]!r}: expected NAME=VALUE")
    return name, value


def _messages(file: BinaryIO) -> list[tuple[str, bytes]]:
    """Give the bodies of a file with where each stands: the lines, or the whole if that is one document."""
    text = file.read(_BYTES_MAX + 1)
    if len(text) > _BYTES_MAX:
        raise SettingsError(f"the file has more than {_BYTES_MAX} bytes; expected a sample of what is sent")
    lines = [
        (f"line {number}", line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()
    ]
    if len(lines) > 1 and _is_json(text):
        return [("document", text)]
    return lines


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _json(row: dict[str, Any]) -> str:
    parts = {
        name: None if row[name] is None else orjson.Fragment(row[name]) for name in ("payload", "context")
    }
    return json_escaped(orjson.dumps(row | parts).decode())


def _words(row: dict[str, Any]) -> str:
    """Say it in lines of 80 columns: the verdict, why, and the envelope."""
    lines = [f"{row['message_at']}: {row['verdict']}"]
    if row["message"]:
        lines += textwrap.wrap(escaped(row["message"]), _WIDTH - _INDENT)
    for name in ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "payload", "context"):
        if row[name] not in (None, ""):
            line = f"{name:12}{escaped(str(row[name]))}"
            lines.append(line if len(line) <= _WIDTH - _INDENT else line[: _WIDTH - _INDENT - 3] + "...")
    return f"\n{' ' * _INDENT}".join(lines)


COMMANDS = (validate,)
