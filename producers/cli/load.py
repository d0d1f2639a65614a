"""The command `producers load`: simulates thousands of tenants over HTTP, and measures the delays."""

import asyncio
import json
import secrets
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from processor.errors import ProcessorError
from processor.runtime.terminal import say
from processor.settings import GatewayKeySettings
from processor.wire.manifest import ManifestWriter
from producers.cli.interrupt import EXIT_SIGNAL, Interrupt
from producers.cli.sending import EXIT_REFUSED
from producers.load.client import Target
from producers.load.pulses import LoadPlan
from producers.load.report import draw
from producers.load.run import Load, LoadOptions
from producers.publishers.report import Display


@click.command()
@click.option("--url", required=True, metavar="URL", help="The gateway, or any server: http://HOST:PORT.")
@click.option("--path", default="/ingest", show_default=True, help="Where pulses are posted.")
@click.option(
    "--duration", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True, help="Seconds."
)
@click.option(
    "--tenants", type=click.IntRange(1, 9999), default=3000, show_default=True, help="tenant-0001, ..."
)
@click.option("--skus", type=click.IntRange(1, 1000), default=10, show_default=True, help="sku-1, ...")
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 1_000_000),
    help="Pulses a second, whatever becomes of them.  [default: each tenant one every 500 to 1,000 ms]",
)
@click.option(
    "--connections", type=click.IntRange(1, 10_000), default=128, show_default=True, help="Kept, at the most."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    help="Seconds for an answer.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="Tries more after 408, 429, 5xx or no answer, under the same id; the report counts them.",
)
@click.option("--seed", type=int, help="Repeat this seed's pulses.  [default: a new one, told in the report]")
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append what is sent and accepted, for `processor audit --manifest FILE`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the run as FILE.svg or FILE.png; needs the extra `load`.",
)
def load(
    *,
    url: str,
    path: str,
    duration: float,
    tenants: int,
    skus: int,
    rate: float | None,
    connections: int,
    timeout: float,
    retries: int,
    seed: int | None,
    manifest: Path | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Load a gateway with the pulses of thousands of tenants, and measure how long each takes.

    Each is a POST of its own, {"tenant_id", "product_sku", "used_amount", "use_unity"}, with an
    Idempotency-Key. A tenant sends its next one 500 to 1,000 ms after the last was due, but not before that
    one was answered; with --rate so many are sent a second, whether answers come or not.

    Delays are counted from when a pulse was due, not from when it could be sent: if the server stalls, what
    waits behind counts its waiting (no coordinated omission). Nothing is sent again unasked.

    For a gateway that asks for keys, set GATEWAY_KEY. The pulses of tenants that the database does not know
    become rejections; this makes 3,000 tenants:

    \b
    seq -f 'tenant-%04.0f' 3000 | processor tenant add --file -
    """  # noqa: D301 - click's mark for lines to be left as they are
    key = GatewayKeySettings.load().gateway_key
    target = Target.of(url, path, None if key is None else key.get_secret_value())
    plan = LoadPlan(duration, secrets.randbelow(10**9) if seed is None else seed, tenants, skus, rate)
    interrupt, failure = Interrupt(), None
    with ManifestWriter(manifest) if manifest else nullcontext() as book:
        one = Load(target, plan, LoadOptions(connections, timeout, retries), book)
        total = None if rate is None else int(rate * duration)
        with interrupt.handled_by(one), Display(one.tally, total, sys.stderr) as display:
            try:
                _run(one, display)
            except ProcessorError as error:
                failure = error
    _report(one, {"seed": plan.seed, "url": target.name}, interrupt, as_json=as_json)
    if plot is not None and one.tally.sent:
        draw(one.tally, plot)
    if interrupt.signal:
        sys.exit(EXIT_SIGNAL + interrupt.signal)
    if failure is not None:
        raise failure
    if one.tally.accepted < one.tally.sent or one.tally.unsent:
        sys.exit(EXIT_REFUSED)


def _run(one: Load, display: Display) -> None:
    try:
        # uvloop halves the CPU time for each request, if the extra `gateway` is installed.
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(one.run(display.show))
    else:
        uvloop.run(one.run(display.show))


def _report(one: Load, facts: dict[str, Any], interrupt: Interrupt, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**facts, **one.tally.as_json(), "interrupted": bool(interrupt.signal)}))
        return
    if interrupt.signal:
        say("interrupted; what was on its way was waited for")
    say(f"seed {facts['seed']}: {one.tally.as_text()}")


COMMANDS = (load,)
