"""The command `producers validate`: judges messages without sending them."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

from processor.errors import SettingsError
from processor.runtime.escaping import escaped, json_escaped
from processor.runtime.terminal import say
from processor.schemas.documents.preparing import HowToRead
from processor.schemas.documents.schema_files import schema_options
from processor.settings import ValidationSettings
from processor.settings.values import UNWRAPS
from producers.cli.given_schemas import read_given

if TYPE_CHECKING:
    from processor.wiring.trial import Trial

EXIT_BAD = 3
_BYTES_MAX = 64 * 1024 * 1024
_WIDTH, _INDENT = 80, 2
_GOOD = ("stored", "read")
_FIELDS = ("tenant_id", "event_type", "message_id", "producer", "occurred_at", "payload", "context")
_ERRORS_MAX, _ERROR_MAX = 10, 240
_SEVERAL = 2
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ANY = "any"


@click.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--schema",
    "schemas",
    metavar="[TYPE=]FILE",
    multiple=True,
    help="Judge by this schema, offline: of one event type, or of all; or a directory with a "
    "TYPE.schema.json for each. Repeatable.",
)
@schema_options
@click.option("--bare", is_flag=True, help="Each message is the payload alone, without an envelope.")
@click.option("--queue", metavar="NAME", help="Read them by the rules of this queue (processor queue).")
@click.option(
    "--map", "maps", metavar="FIELD=/POINTER", multiple=True, help="Where bodies have FIELD; repeatable."
)
@click.option("--unwrap", type=click.Choice(UNWRAPS), help="Whose envelopes to take off, the outer first.")
@click.option("--tenant", "tenant_id", metavar="NAME", help="The one tenant whose events the queue carries.")
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
    files: tuple[str, ...],
    schemas: tuple[str, ...],
    how: HowToRead,
    bare: bool,
    queue: str | None,
    attributes: tuple[str, ...],
    as_json: bool,
    **said: Any,  # noqa: ANN401 - the fields of Said
) -> None:
    """Tell what would become of each message of FILE (- is standard input). Nothing is sent or saved.

    FILE has one message a line, or is one JSON document. Exit code 3 if any message would be rejected.

    With --schema the messages are judged by schemas in files: no database, no settings, no network. Any
    tenant is taken for one that is known, and a schema for whatever version an event names. Pulses and voids
    are judged by our samples, where no schema is given for them.

    \b
    producers validate events.ndjson --schema order.created=order.json
    producers validate payloads.ndjson --schema order.json --bare

    Without --schema each message is read as the processor would read it: by the options here, then by the
    queue's rules in the registry, then by the settings. With DATABASE_URL it is judged by the registry's
    tenants and schemas too; without, by its form alone.

    \b
    producers validate events.ndjson --map tenant_id=/client_id \\
      --map event_type=/event_type --map payload=/message

    A duplicate or an id_conflict shows only when a message is saved.
    """  # noqa: D301 - click's mark for lines to be left as they are
    beside = dict(_named(attribute) for attribute in attributes)
    trial, known = _trial(read_given(schemas, how), how, queue, bare=bare, **said)
    count = bad = 0
    for place, body in _messages(files):
        row = {"message_at": place} | trial.judge(body, beside)
        count, bad = count + 1, bad + (row["verdict"] not in _GOOD)
        click.echo(_json(row) if as_json else _words(row, () if schemas else _FIELDS))
    if not as_json:
        say(f"{count} message(s), {count - bad} good, {bad} bad; {known}")
    raise SystemExit(EXIT_BAD if bad else 0)


def _trial(
    given: Mapping[str | None, Any],
    how: HowToRead,
    queue: str | None,
    *,
    bare: bool,
    **said: Any,  # noqa: ANN401 - the fields of Said
) -> tuple["Trial", str]:
    """Make the trial for the messages, and describe its rules."""
    # Imported here: no other command needs the database code, and start-up stays fast.
    from processor.wiring.trial import GivenSchemas, QueueOverrides, Trial  # noqa: PLC0415

    if given and queue is not None:
        raise SettingsError("--queue and --schema: a queue's rules are in the database; give one of the two")
    if bare:
        said |= _of_bare(given, **said)
    if given:
        trial = Trial(
            ValidationSettings.model_construct(),
            None,
            QueueOverrides(**said),
            GivenSchemas(given, how.formats),
        )
        return trial, "by the schemas given, any tenant taken as known"
    trial = Trial(ValidationSettings.load(), queue, QueueOverrides(**said))
    if trial.by_form:
        return trial, "by their form alone, since DATABASE_URL is not set"
    no_rules = "" if trial.has_rules else ", which has no rules in the registry"
    return trial, f"on queue {trial.queue}{no_rules}"


def _of_bare(
    given: Mapping[str | None, Any],
    *,
    maps: tuple[str, ...],
    tenant_id: str | None,
    event_type: str | None,
    **_rest: object,
) -> dict[str, Any]:
    """Return the options for payloads without envelopes: each is a whole body of one tenant and type."""
    if maps:
        raise SettingsError(
            "--bare and --map: a bare payload has no fields to be mapped; give one of the two"
        )
    if given:
        tenant_id = tenant_id or _ANY
        if event_type is None and (None in given or len(given) == 1):
            event_type = next(iter(given)) or _ANY
    if tenant_id is None or event_type is None:
        wanted = "--event-type TYPE" if given else "--schema FILE, or --event-type TYPE and --tenant NAME"
        raise SettingsError(f"--bare: a payload alone does not say what it is; expected {wanted} too")
    return {"maps": ("payload=",), "tenant_id": tenant_id, "event_type": event_type}


def _named(attribute: str) -> tuple[str, str]:
    name, equals, value = attribute.partition("=")
    if not name or not equals:
        raise SettingsError(f"--attribute {attribute[:64]!r}: expected NAME=VALUE")
    return name, value


def _messages(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the bodies of files with their places: the lines, or a whole file if it is one document."""
    for name in files:
        with click.open_file(name, "rb") as file:
            text = file.read(_BYTES_MAX + 1)
        where = f"{name} " if len(files) > 1 else ""
        if len(text) > _BYTES_MAX:
            raise SettingsError(f"{name}: more than {_BYTES_MAX} bytes; expected a sample of what is sent")
        if _is_document(text):
            yield f"{where}document", text
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"{where}line {number}", line


def _is_document(text: bytes) -> bool:
    """Tell whether several lines are one message: valid JSON, or a start like indented JSON."""
    lines = text.removeprefix(_BYTE_ORDER_MARK).strip().splitlines()
    if len(lines) < _SEVERAL:
        return False
    if lines[0].strip() in (b"{", b"["):
        return True
    try:
        orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return False
    return True


def _json(row: dict[str, Any]) -> str:
    parts = {
        name: None if row[name] is None else orjson.Fragment(row[name]) for name in ("payload", "context")
    }
    return json_escaped(orjson.dumps(row | parts).decode())


def _words(row: dict[str, Any], fields: Sequence[str]) -> str:
    """Write a result in lines of 80 columns: verdict, reasons, and these fields of the envelope."""
    lines = [f"{row['message_at']}: {row['verdict']}"]
    for words in _why(row):
        lines += textwrap.wrap(escaped(words), _WIDTH - _INDENT)
    for name in fields:
        if row[name] not in (None, ""):
            line = f"{name:12}{escaped(str(row[name]))}"
            lines.append(line if len(line) <= _WIDTH - _INDENT else line[: _WIDTH - _INDENT - 3] + "...")
    return f"\n{' ' * _INDENT}".join(lines)


def _why(row: dict[str, Any]) -> list[str]:
    """Return the schema errors of a payload by pointer; else the verdict's message, if any."""
    if row["verdict"] != "schema_violation" or not row["errors"]:
        return [row["message"]] if row["message"] else []
    shown, count = row["errors"][:_ERRORS_MAX], row["error_count"]
    words = [f"{error['pointer'] or 'the payload'}: {error['message']}"[:_ERROR_MAX] for error in shown]
    if count is None:
        words.append("a payload this long is searched for its first error only")
    elif count > len(shown):
        words.append(f"and {count - len(shown)} more")
    return words


COMMANDS = (validate,)
