"""The command `producers`: the way in, its help, its errors and its exit codes."""

import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import click

from processor.errors import ProcessorError, SettingsError, Unavailable
from processor.manifest import ManifestWriter
from processor.settings import Settings
from producers.doors.sqs import SqsDoor
from producers.fake import SAMPLE_TENANTS, Plan, fake_messages, sample_tenants
from producers.gateway.cli import gateway
from producers.lines import Reading, read_messages
from producers.outgoing import Outgoing
from producers.publish import BATCH_SIZE_MAX, Publisher
from producers.report import Display, Tally
from producers.session import open_client

EXIT_REFUSED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_SIGNAL = 1, 2, 4, 128
LATENCY_S_MAX = 0.25
"""How long a message of a slow trickle may wait for others to fill its batch."""


class _Commands(click.Group):
    """Tells an error of ours in one line, with the exit code of its kind."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        try:
            return super().invoke(ctx)
        except ProcessorError as error:
            click.echo(f"producers: {error}", err=True)
            if isinstance(error, SettingsError):
                ctx.exit(EXIT_USAGE)
            ctx.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_REFUSED)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
def main() -> None:
    """Put events on the queue that the processor reads.

    The queue and the way to it come from the environment or from .env, as every AWS tool reads them:
    SQS_QUEUE_URL, AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. With
    LOCALSTACK_HOST set, the client is localstack-client's.

    \b
    Exit codes: 0 all accepted           1 something was refused or not sent
                2 bad usage or settings  4 the queue can't be reached
                130 Ctrl-C (143 SIGTERM), after the report of what was done
    """  # noqa: D301 - click's mark for lines to be left as they are
    logging.basicConfig(level=logging.WARNING, format="producers: %(message)s", stream=sys.stderr)


main.add_command(gateway)


def _shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both commands take, in the order in which help should show it."""
    options = (
        click.option("--queue-url", metavar="URL", help="The queue, instead of SQS_QUEUE_URL."),
        click.option(
            "--manifest",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Append to FILE what is to be sent, before, and what was accepted, after; "
            "`processor audit --manifest FILE` proves by it that nothing was lost.",
        ),
        click.option(
            "--senders", type=click.IntRange(1, 64), default=4, show_default=True, help="Threads that send."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What both commands were told about sending."""

    queue_url: str | None
    manifest: Path | None
    senders: int
    as_json: bool


@main.command()
@click.option(
    "--events", type=click.IntRange(1), default=1000, show_default=True, help="Messages to send, all told."
)
@click.option(
    "--tenants",
    type=click.IntRange(1, 9999),
    help=f"Send for the first N of {', '.join(SAMPLE_TENANTS)}, tenant-0006, ...  [default: 5]",
)
@click.option("--tenant", "names", multiple=True, metavar="NAME", help="Send for this tenant; repeatable.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Messages a second.  [default: no limit]"
)
@click.option(
    "--invalid", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of invalid ones."
)
@click.option(
    "--duplicates", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of duplicates."
)
@click.option(
    "--seed", type=int, help="Repeat what this seed gave.  [default: a new one, told in the report]"
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]),
    help="When the first event happened (UTC); the others follow at 0.37 s.  [default: yesterday]",
)
@click.option(
    "--counter",
    is_flag=True,
    help="Send created, updated and deleted by users instead, whose ids are unique for user and type alone.",
)
@_shared_options
def fake(  # noqa: PLR0913 - an option each
    *,
    events: int,
    tenants: int | None,
    names: tuple[str, ...],
    rate: float | None,
    invalid: float,
    duplicates: float,
    seed: int | None,
    since: datetime | None,
    counter: bool,
    **shared: Any,  # noqa: ANN401 - the shared options, which _Delivery names
) -> None:
    """Send invented events: orders, sign-ups, payments and pulses of some tenants.

    They are valid by the sample schemas that `processor demo` and `processor dev` publish, and travel in
    turn as message attributes, CloudEvents and native events, each with an id of its own.

    With --counter they are events of users, which the samples' meters count (`processor count`). Ids begin
    anew for each user: the same id of another user is another message.

    --invalid gives cause for each reason to reject that a producer can give: not_json, envelope_invalid,
    unknown_tenant, unknown_event_type, unknown_schema_version, schema_violation, id_conflict. --duplicates
    sends earlier events once more, some written differently (key order, white space, 2.0 for 2).

    The same --seed with the same --tenants, --invalid, --duplicates and --since gives the same bodies and
    the same ids: run it twice in a day, and the second run is all duplicates. Change any of them, and no id
    is shared.
    """
    if tenants is not None and names:
        raise click.UsageError("--tenants N or --tenant NAME, not both")
    if invalid + duplicates > 1:
        raise click.UsageError(
            f"--invalid {invalid} and --duplicates {duplicates} are more than all there is"
        )
    if any(not 1 <= len(name) <= 256 for name in names):  # noqa: PLR2004 - the bound of the tables
        raise click.UsageError("--tenant needs a name of 1 to 256 characters")
    chosen = tuple(dict.fromkeys(names)) or sample_tenants(tenants or len(SAMPLE_TENANTS))
    plan = Plan(
        events,
        secrets.randbelow(10**9) if seed is None else seed,
        chosen,
        invalid,
        duplicates,
        _yesterday() if since is None else since.replace(tzinfo=UTC),
        counter,
    )
    batch_size_max = (
        BATCH_SIZE_MAX if rate is None else max(1, min(BATCH_SIZE_MAX, int(rate * LATENCY_S_MAX)))
    )

    def messages(publisher: Publisher, _tally: Tally, _interrupt: "_Interrupt") -> Iterator[Outgoing]:
        return _paced(fake_messages(plan), rate, publisher.wait)

    _deliver(_Delivery(**shared), messages, batch_size_max, total=events, seed=plan.seed)


def _yesterday() -> datetime:
    """Give the beginning of yesterday: recent, and the same all day, so that a seed repeats its events."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=1)


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", metavar="NAME", help="Each line is a payload of this tenant; with --event-type.")
@click.option("--event-type", metavar="TYPE", help="The event type of these payloads.")
@click.option("--producer", metavar="NAME", help="The producer of these payloads.")
@click.option("--make-ids", is_flag=True, help="Give native events that have no id one, at random.")
@click.option("--raw", is_flag=True, help="Send lines that are not JSON, too, as they are.")
@_shared_options
def send(
    *,
    file: BinaryIO,
    tenant: str | None,
    event_type: str | None,
    producer: str | None,
    make_ids: bool,
    raw: bool,
    **shared: Any,  # noqa: ANN401 - the shared options, which _Delivery names
) -> None:
    """Send each line of FILE (- is standard input) as one message.

    A line is a whole body, in any format that the processor knows, and is sent as it is, byte for byte:

    \b
    {"id": "o-1", "tenant_id": "acme", "event_type": "order.created", "payload": {...}}
    {"specversion": "1.0", "id": "o-1", "source": "shop", "type": "order.created", "tenantid": "acme",
     "data": {...}}  (on one line)
    {"tenant_id": "acme", "product_sku": "storage", "used_amount": 1.5, "use_unity": "GB"}

    With --tenant and --event-type a line is only the payload; the rest goes into message attributes, with
    a random id made for each line.

    Lines leave in tens: the last few of a pipe that stays open wait for more, or for its end.

    Whether an event is valid is for the processor to say: an unknown tenant is sent. Not sent is a line
    that isn't JSON (but see --raw) or isn't UTF-8 (never); it is told with its number, and the exit code
    is 1.

    An event without an id of its own takes the id that SQS gives its message. Should a reply get lost,
    the retry makes two events of it; --make-ids prevents that. But sending a file again sends new events,
    unless the ids stand in the file.
    """  # noqa: D301 - click's mark for lines to be left as they are
    reading = Reading(tenant, event_type, producer, raw, make_ids)

    def messages(_publisher: Publisher, tally: Tally, interrupt: "_Interrupt") -> Iterator[Outgoing]:
        return read_messages(_InterruptibleStream(file, interrupt), reading, tally.count_bad_line)

    _deliver(_Delivery(**shared), messages, BATCH_SIZE_MAX)


def _deliver(
    delivery: _Delivery,
    messages: Callable[[Publisher, Tally, "_Interrupt"], Iterable[Outgoing]],
    batch_size_max: int,
    total: int | None = None,
    **facts: object,
) -> None:
    """Send, show, report; ends the process by an exit code unless all was accepted."""
    named = {} if delivery.queue_url is None else {"sqs_queue_url": delivery.queue_url}
    settings = Settings.load(**named)
    queue_url = settings.need_queue_url()
    door = SqsDoor(open_client(settings, delivery.senders), queue_url)
    tally, interrupt, failure = Tally(), _Interrupt(), None
    with ManifestWriter(delivery.manifest) if delivery.manifest else nullcontext() as manifest:
        publisher = Publisher(door, manifest, senders=delivery.senders, wait_s_max=settings.retry_wait_s_max)
        with interrupt.handled_by(publisher), Display(tally, total, sys.stderr) as display:
            try:
                taken = tally.taken(messages(publisher, tally, interrupt))
                for receipt in publisher.publish(taken, batch_size_max):
                    tally.count(receipt)
                    display.show()
            except ProcessorError as error:
                failure = error
    _print_report(tally, interrupt, as_json=delivery.as_json, facts=facts)
    if interrupt.signal:
        sys.exit(EXIT_SIGNAL + interrupt.signal)
    if failure is not None:
        raise failure
    if tally.refused or tally.bad_lines:
        sys.exit(EXIT_REFUSED)


def _print_report(tally: Tally, interrupt: "_Interrupt", *, as_json: bool, facts: dict[str, object]) -> None:
    if as_json:
        click.echo(json.dumps({**facts, **tally.as_json(), "interrupted": bool(interrupt.signal)}))
        return
    if interrupt.signal:
        click.echo("interrupted; what was on its way has come to its end")
    click.echo("".join(f"{name} {value}: " for name, value in facts.items()) + tally.as_text())


def _paced(
    messages: Iterable[Outgoing], rate: float | None, wait: Callable[[float], bool]
) -> Iterator[Outgoing]:
    """Let so many messages pass a second, evenly; end when the wait is called off."""
    begun_at_s = time.monotonic()
    for number, message in enumerate(messages):
        ahead_s = 0.0 if rate is None else number / rate - (time.monotonic() - begun_at_s)
        if wait(ahead_s) if ahead_s > 0 else False:
            return
        yield message


class _Interrupt:
    """The first SIGINT or SIGTERM ends the sending cleanly; a second one ends the process where it stands."""

    def __init__(self) -> None:
        self.signal = 0
        self.reading = False
        self._publisher: Publisher | None = None

    @contextmanager
    def handled_by(self, publisher: Publisher) -> Iterator[None]:
        """Stop this publisher on a signal, for as long as the block lasts."""
        self._publisher = publisher
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            self._leave(number)
        self.signal = number
        if self._publisher is not None:
            self._publisher.stop()
        if self.reading:
            # Python would go on with a blocked read, which on a terminal never ends.
            raise KeyboardInterrupt

    @staticmethod
    def _leave(number: int) -> NoReturn:
        # The manifest is not buffered: what it must know, it knows.
        os._exit(EXIT_SIGNAL + number)


class _InterruptibleStream:
    """A stream that comes to its end when a signal does."""

    def __init__(self, stream: BinaryIO, interrupt: _Interrupt) -> None:
        self._stream = stream
        self._interrupt = interrupt

    def readline(self, size: int = -1, /) -> bytes:
        """Give the next line, or nothing once a signal came."""
        if self._interrupt.signal:
            return b""
        try:
            self._interrupt.reading = True
            return self._stream.readline(size)
        except KeyboardInterrupt:
            return b""
        finally:
            self._interrupt.reading = False
