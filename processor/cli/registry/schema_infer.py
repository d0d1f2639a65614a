"""processor schema infer."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import click

from processor.cli.moments import Since
from processor.cli.output import print_json
from processor.errors import NotFound, SettingsError
from processor.runtime.terminal import fit, say
from processor.schemas.sample_files import BYTES_MAX, sample, samples_of
from processor.settings import DatabaseSettings
from processor.wire.json_pointer import follow, steps
from processor.wiring.trial import each_stored

_STORED = "stored"
_LIMIT = 10_000
_FEW = 20


@click.command("infer")
@click.argument("event_type", required=False)
@click.option(
    "--from",
    "source",
    metavar="stored|FILE",
    required=True,
    help="stored: the newest stored messages of EVENT_TYPE. Else a file (- is standard input): a payload a "
    "line, one JSON array of them, or one payload.",
)
@click.option("--tenant", "tenant_id", help="Of this tenant's stored messages alone.")
@click.option(
    "--since",
    type=Since(),
    help="Only what was stored since then: 7d, 12h, or a time (RFC 3339; UTC if bare).",
)
@click.option(
    "--limit", type=click.IntRange(1), default=_LIMIT, show_default=True, help="So many samples at most."
)
@click.option(
    "--payload",
    "payload",
    metavar="POINTER",
    default="",
    help="Where a sample of FILE has its payload, such as /payload where they are whole events.",
)
def schema_infer(
    event_type: str | None,
    *,
    source: str,
    tenant_id: str | None,
    since: datetime | None,
    limit: int,
    payload: str,
) -> None:
    """Infer a draft schema from samples: edit it, then publish it.

    \b
    processor schema infer order.created --from stored > order.json
    processor schema infer --from events.ndjson --payload /payload > order.json

    The schema has the members and types of the samples. Members in every sample are required. A format
    (date-time, date, uuid) is set if all texts have it. Add the limits of values yourself.
    """  # noqa: D301 - click's mark for lines to be left as they are
    # Imported here: no other command needs it.
    from processor.schemas.inferring import Inferring  # noqa: PLC0415

    found = Inferring()
    whole_events = False
    if source == _STORED:
        if event_type is None or payload:
            raise click.UsageError("--from stored: expected EVENT_TYPE, and no --payload")
        each_stored(
            DatabaseSettings.load(), event_type, tenant_id, since, limit, lambda text: found.add(sample(text))
        )
        if not found.count:
            raise NotFound(f"no message of event type {event_type!r} is stored that was asked for")
    else:
        if event_type is not None or tenant_id is not None or since is not None:
            raise click.UsageError("EVENT_TYPE, --tenant and --since are for --from stored")
        whole_events = not payload
        for place, whole in _samples(source, limit):
            value = _payload(place, whole, payload)
            whole_events = whole_events and _is_event(value)
            try:
                found.add(value)
            except SettingsError as error:
                raise SettingsError(f"{source}: {place}: {error}") from None
    print_json(found.schema())
    for line in _advice(found.count, whole_events=whole_events):
        say(fit(line, "  "), err=True)


def _samples(source: str, limit: int) -> Iterator[tuple[str, Any]]:
    try:
        with click.open_file(source, "rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"--from {source}: {error.strerror}; expected a file, or stored") from None
    try:
        yield from islice(samples_of(data), limit)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None


def _payload(place: str, whole: Any, pointer: str) -> Any:  # noqa: ANN401 - any JSON value
    if not pointer:
        return whole
    if not pointer.startswith("/"):
        raise click.UsageError(f"--payload {pointer}: expected a JSON pointer, such as /payload")
    found = follow(whole, steps(pointer))
    if found is None:
        raise SettingsError(f"{place}: nothing is at {pointer} (--payload)")
    return found


def _is_event(sample: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(sample, dict) and (
        sample.keys() >= {"event_type", "payload"} or "specversion" in sample
    )


def _advice(count: int, *, whole_events: bool) -> Iterator[str]:
    yield f"of {count:,} sample{'s' if count > 1 else ''}; each of them passes"
    if whole_events:
        yield (
            "these look like whole events, and a schema is for their payload alone: say --payload /payload, "
            "or /data of CloudEvents"
        )
    if count < _FEW:
        yield "so few don't show what may be missing: look at what is required"
    yield (
        "say what you know: enum or pattern for codes, minimum and maximum, maxLength and maxItems; and "
        '"additionalProperties": false where no other member may come'
    )
    yield "then: processor schema test EVENT_TYPE FILE, and processor schema publish EVENT_TYPE FILE"
