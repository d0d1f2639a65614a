"""The commands of the load tests: `python -m tests.bench bench`, and each of its parts alone."""

import errno
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg

from processor.cli.errors import Commands, Exit
from processor.devstack.interrupts import Interrupted, interrupts
from processor.errors import ProcessorError
from tests.bench import limits
from tests.bench.contestants import OURS, ours, roster
from tests.bench.faults import AuditFailed, LoadError
from tests.bench.figures import report
from tests.bench.figures.latency import RATES, latencies
from tests.bench.figures.plot import draw
from tests.bench.figures.results import Results, describe
from tests.bench.flood import flood
from tests.bench.gateway import gateway
from tests.bench.ground import TOOLS, Ground, open_ground
from tests.bench.idle import idle
from tests.bench.memory import memory
from tests.bench.queue.queues import Kind
from tests.bench.race import entry, race
from tests.bench.sources import sources
from tests.bench.usage import usage

SCALE = (1, 2, 3, 4)
PROMISED_PER_S, PROMISED_S = 2_000, 60
"""What the gateway is to hold on two cores, and for how long."""

PROMPT = (OURS, "sqs-consumer 4x", "sqs-consumer 8x")
"""Whose latency is measured where nobody else is asked for: ours, and the best of the peers."""

SHARED = "Messages of a run; slow contestants get a part of them, as every figure is per message."

Option = Callable[[Callable[..., None]], Callable[..., None]]


class LoadCommands(Commands):
    """Commands whose every failure is one line; whatever ends them, nothing that they started is left."""

    def invoke(self, ctx: click.Context) -> Any:
        # psycopg would tell of every rollback that an interrupt has made impossible.
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)
        try:
            with interrupts():
                return super().invoke(ctx)
        except Interrupted as told:
            click.echo("\nstopped; nothing is left running", err=True)
            ctx.exit(told.exit_code)


@contextmanager
def failures() -> Iterator[None]:
    """Say in one line what a load test stumbles over, and end with the exit code of its kind."""
    try:
        yield
    except (ProcessorError, psycopg.Error, OSError) as error:
        told = _interrupt_before(error)
        if told is not None:
            raise told from None
        _fail(error)
        raise


def _fail(error: ProcessorError | psycopg.Error | OSError) -> None:
    """Raise what fits the error; come back from one that says it all by itself, or is a bug."""
    match error:
        case AuditFailed():
            click.echo(f"no figure: {error}", err=True)
            raise SystemExit(Exit.PROBLEM_FOUND) from None
        case psycopg.errors.DiskFull():
            raise LoadError(f"PostgreSQL has no room left on the disk of {TOOLS}; make room") from None
        case psycopg.OperationalError():
            click.echo(f"PostgreSQL went away: {str(error).strip().splitlines()[0]}", err=True)
            raise SystemExit(Exit.UNREACHABLE) from None
        case OSError(errno=errno.ENOSPC):
            raise LoadError(f"no room is left on the disk of {TOOLS}; make room") from None


def _interrupt_before(error: BaseException) -> Interrupted | None:
    """Find the interrupt that an error is only a consequence of: whoever tidies up may fail for it."""
    before: BaseException | None = error
    while before is not None and not isinstance(before, Interrupted):
        before = before.__context__
    return before


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the servers, keep what it finds, and show it: `command(ground, results, ...)`."""

    @click.option(
        "--port", type=click.IntRange(1, 65_535), help="The queue server's port; any free one without it."
    )
    @functools.wraps(command)
    def wrapped(port: int | None, queue: Kind = "own", **options: Any) -> None:
        with failures():
            with open_ground(queue, port) as ground:
                results = Results(describe(ground))
                command(ground, results, **options)
            report.show(results)
            path = results.save()
            click.echo(f"\nsaved: {_short(path)}")
            if results.race or results.latencies:
                click.echo(f"plot:  {_short(draw(results, path.with_suffix('.svg')))}")

    return wrapped


# Only where nothing is asked that SQS's protocol has no words for.
queue_option = click.option(
    "--queue",
    type=click.Choice(["own", "fauxqs"]),
    default="own",
    show_default=True,
    help="The queue server: the project's own, or fauxqs from npm.",
)


def rounds_option(default: int) -> Option:
    return click.option(
        "--rounds",
        type=click.IntRange(1, 100),
        default=default,
        show_default=True,
        help="Everybody runs once in each; the order is another one each time.",
    )


def messages_option(default: int, words: str = SHARED) -> Option:
    return click.option(
        "--messages",
        type=click.IntRange(1_000, 10_000_000),
        default=default,
        show_default=True,
        help=words,
    )


def seconds_option(default: int) -> Option:
    return click.option(
        "--seconds",
        type=click.IntRange(1, 3_600),
        default=default,
        show_default=True,
        help="How long each measurement takes.",
    )


@click.group(cls=LoadCommands, context_settings={"max_content_width": 110})
def main() -> None:
    """Measure how fast, how dear and how late: ours, what people use today, and the walls around both.

    One queue server and one PostgreSQL (embedded, fsync on) on this machine; a fresh database and a fresh
    queue for each run. Everybody validates by the same schema, stores into the same table with its keys, and
    deletes after the commit. Starting and 2,000 messages of warm-up are not counted. Each run must pass
    `processor audit`, else there is no figure and the exit code is 3.

    Give the machine some rest meanwhile. Results go to .processor/load/results.
    """


@main.command()
@rounds_option(5)
@messages_option(20_000)
@measuring
def bench(ground: Ground, results: Results, rounds: int, messages: int) -> None:
    """Measure everything, in less than half an hour."""
    _drain(ground, results, rounds, messages, ())
    _latency(ground, results, RATES, seconds=6)
    results.idle = idle(ground, ours(), seconds=20)
    results.memory = memory(ground, ours(), many=1_000_000, large=300, seconds=10, say=_say)
    _scale(ground, results, rounds=2, messages=messages)
    results.flood = flood(ground, ours(), messages=100_000, seconds=8, say=_say)
    results.usage = usage(ground, rounds, messages, 1_000_000, _say)
    results.gateways = gateway(ground, PROMISED_PER_S, PROMISED_S, rounds, _say)
    results.sources = sources(ground, 2, messages, _say)


@main.command()
@rounds_option(5)
@messages_option(20_000)
@click.option(
    "--only", multiple=True, metavar="WORD", help="Only those whose name has this word; repeatable."
)
@queue_option
@measuring
def drain(ground: Ground, results: Results, rounds: int, messages: int, only: tuple[str, ...]) -> None:
    """Let everybody drain a full queue, and measure the queue and the database alone."""
    _drain(ground, results, rounds, messages, only)


@main.command()
@click.option(
    "--rate",
    "rates",
    type=click.IntRange(1, 20_000),
    multiple=True,
    default=RATES,
    show_default=True,
    help="Messages a second; repeatable.",
)
@seconds_option(15)
@click.option(
    "--only", multiple=True, metavar="WORD", help="Only those whose name has this word; repeatable."
)
@queue_option
@measuring
def latency(
    ground: Ground, results: Results, rates: tuple[int, ...], seconds: int, only: tuple[str, ...]
) -> None:
    """Send at constant rates, and measure from send to commit."""
    _latency(ground, results, rates, seconds, only)


@main.command(name="idle")
@seconds_option(60)
@measuring
def idle_command(ground: Ground, results: Results, seconds: int) -> None:
    """Count what ours asks of an empty queue; receives are billed."""
    results.idle = idle(ground, ours(), seconds)


@main.command(name="memory")
@messages_option(1_000_000, "Messages that wait in the second of the three cases.")
@click.option(
    "--large", type=click.IntRange(1, 10_000), default=300, show_default=True, help="Messages of 1 MiB."
)
@seconds_option(30)
@measuring
def memory_command(ground: Ground, results: Results, messages: int, large: int, seconds: int) -> None:
    """Compare what ours holds in memory: 1,000 waiting, a million waiting, and large ones."""
    results.memory = memory(ground, ours(), many=messages, large=large, seconds=seconds, say=_say)


@main.command()
@rounds_option(5)
@messages_option(20_000)
@queue_option
@measuring
def scale(ground: Ground, results: Results, rounds: int, messages: int) -> None:
    """Drain with one to four processes, and count deadlocks."""
    _scale(ground, results, rounds, messages)


@main.command(name="flood")
@messages_option(100_000, "Messages of the flood.")
@seconds_option(15)
@measuring
def flood_command(ground: Ground, results: Results, messages: int, seconds: int) -> None:
    """Measure 99 quiet tenants beside one that floods the queue."""
    results.flood = flood(ground, ours(), messages=messages, seconds=seconds, say=_say)


@main.command(name="usage")
@rounds_option(5)
@messages_option(20_000)
@click.option(
    "--many",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="Pulses that four processes drain, to see what becomes of the table of totals.",
)
@measuring
def usage_command(ground: Ground, results: Results, rounds: int, messages: int, many: int) -> None:
    """Drain pulses with a meter and without, of many totals and of one; then look at the totals."""
    results.usage = usage(ground, rounds, messages, many, _say)


@main.command(name="gateway")
@rounds_option(5)
@click.option(
    "--rate",
    type=click.IntRange(1, 20_000),
    default=PROMISED_PER_S,
    show_default=True,
    help="Pulses a second, with everything on this machine.",
)
@seconds_option(PROMISED_S)
@click.option("--quick", is_flag=True, help="Ten seconds and one round, to see that it works.")
@measuring
def gateway_command(
    ground: Ground, results: Results, rounds: int, rate: int, seconds: int, *, quick: bool
) -> None:
    """Load the HTTP gateway with everything behind it, then alone against its floor and a plain handler."""
    seconds, rounds = (10, 1) if quick else (seconds, rounds)
    results.gateways = gateway(ground, rate, seconds, rounds, _say)


@main.command(name="sources")
@rounds_option(2)
@messages_option(20_000)
@measuring
def sources_command(ground: Ground, results: Results, rounds: int, messages: int) -> None:
    """Drain the same messages from SQS, RabbitMQ and Kafka."""
    results.sources = sources(ground, rounds, messages, _say)


def _drain(ground: Ground, results: Results, rounds: int, messages: int, only: Sequence[str]) -> None:
    everybody = roster(TOOLS)
    walls = {one.name: one for one in limits.entries()}
    entries = [
        entry(everybody[name]()) if name in everybody else walls[name]
        for name in _chosen([*everybody, *walls], only)
    ]
    results.race = race(ground, entries, rounds, messages, _say)


def _latency(
    ground: Ground, results: Results, rates: Sequence[int], seconds: int, only: Sequence[str] = ()
) -> None:
    everybody = roster(TOOLS)
    contestants = [everybody[name]() for name in (_chosen(list(everybody), only) if only else PROMPT)]
    results.latencies = latencies(ground, contestants, rates, seconds, _say)


def _scale(ground: Ground, results: Results, rounds: int, messages: int) -> None:
    results.scale = race(ground, [entry(ours(count)) for count in SCALE], rounds, messages, _say)


def _chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Give the names that have one of the words; all, if there are no words."""
    chosen = [name for name in names if not only or any(word in name for word in only)]
    if not chosen:
        raise click.UsageError(f"--only {' '.join(only)} leaves nobody; there are: {'; '.join(names)}")
    return chosen


def _say(line: str) -> None:
    click.echo(line)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
