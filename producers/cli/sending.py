"""The common part of `fake` and `send`: options, publisher, report and exit code."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from processor.errors import ProcessorError
from processor.runtime.terminal import say
from processor.settings import PublisherSettings
from processor.wire.manifest import ManifestWriter
from producers.cli.interrupt import EXIT_SIGNAL, Interrupt
from producers.publishers.opening import PUBLISHERS, open_publisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import OUTAGE_S_MAX, PublishRun
from producers.publishers.report import Display, SendTally

EXIT_REFUSED = 1


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of both commands, in the order of the help text."""
    options = (
        click.option(
            "--to",
            type=click.Choice(list(PUBLISHERS)),
            default="sqs",
            show_default=True,
            help="The protocol to send by.",
        ),
        click.option(
            "--url",
            "--queue-url",
            metavar="URL",
            help="Where that is: http://HOST:PORT (http), HOST:PORT (grpc), amqp://HOST/VHOST?queue=NAME, "
            "kafka://HOST:PORT/TOPIC; without it SQS_QUEUE_URL (sqs) or SOURCE_URL (amqp, kafka). A "
            "gateway's key and a broker's password belong to the environment: GATEWAY_KEY, SOURCE_URL.",
        ),
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
        click.option(
            "--wait",
            "wait_s",
            type=click.IntRange(0, 86_400),
            default=int(OUTAGE_S_MAX),
            show_default=True,
            metavar="SECONDS",
            help="For how long a queue that can't be reached is tried again; then the report says how many "
            "were accepted, and the exit code is 4.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The values of the shared options."""

    to: str
    url: str | None
    manifest: Path | None
    senders: int
    wait_s: int
    as_json: bool


def deliver(
    delivery: SendOptions,
    messages: Callable[[PublishRun, SendTally, Interrupt], Iterable[Outgoing]],
    batch_size_max: int,
    total: int | None = None,
    **facts: object,
) -> None:
    """Send, show progress, and report; exits with a code unless all messages were accepted."""
    settings = PublisherSettings.load()
    publisher = open_publisher(delivery.to, delivery.url, settings, delivery.senders)
    tally, interrupt, failure = SendTally(), Interrupt(), None
    manifesting = ManifestWriter(delivery.manifest) if delivery.manifest else nullcontext()
    with closing(publisher), manifesting as manifest:
        publish_run = PublishRun(
            publisher,
            manifest,
            senders=delivery.senders,
            wait_s_max=settings.retry_wait_s_max,
            outage_s_max=delivery.wait_s,
        )
        with interrupt.handled_by(publish_run), Display(tally, total, sys.stderr) as display:
            try:
                taken = tally.taken(messages(publish_run, tally, interrupt))
                for receipt in publish_run.publish(taken, batch_size_max):
                    tally.count(receipt)
                    display.show()
            except ProcessorError as error:
                failure = error
    _print_report(tally, interrupt, as_json=delivery.as_json, facts=facts)
    if interrupt.signal:
        sys.exit(EXIT_SIGNAL + interrupt.signal)
    if failure is not None:
        raise failure
    if tally.refused > tally.refused_as_meant or tally.bad_lines:
        sys.exit(EXIT_REFUSED)


def _print_report(tally: SendTally, interrupt: Interrupt, *, as_json: bool, facts: dict[str, object]) -> None:
    if as_json:
        click.echo(json.dumps({**facts, **tally.as_json(), "interrupted": bool(interrupt.signal)}))
        return
    if interrupt.signal:
        say("interrupted; what was on its way has come to its end")
    say("".join(f"{name} {value}: " for name, value in facts.items()) + tally.as_text())
