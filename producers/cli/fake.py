"""The command `producers fake`: generated events, reproducible by seed."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from producers.cli.interrupt import Interrupt
from producers.cli.sending import SendOptions, deliver, shared_options
from producers.fake.messages import SAMPLE_TENANTS, FakePlan, fake_messages, sample_tenants
from producers.publishers.outgoing import Outgoing
from producers.publishers.publish import BATCH_SIZE_MAX, PublishRun
from producers.publishers.report import SendTally

LATENCY_S_MAX = 0.25
"""At a low rate, how long a message may wait for its batch to fill."""


@click.command()
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
@shared_options
def fake(
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
    **shared: Any,  # noqa: ANN401 - the shared options, which Delivery names
) -> None:
    """Send invented events: orders, sign-ups, payments and pulses of some tenants.

    They are valid by the sample schemas that `processor demo` and `processor dev` publish, and travel in
    turn as message attributes, CloudEvents and native events, each with an id of its own.

    With --counter they are events of users, which the samples' meters count (`processor count`). Ids begin
    anew for each user: the same id of another user is another message.

    --invalid gives cause for each reason to reject that a producer can give: not_json, envelope_invalid,
    unknown_tenant, unknown_event_type, unknown_schema_version, schema_violation, id_conflict. A gateway
    refuses some of them itself; as they were meant to be, that is no failure (exit code 0). --duplicates
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
    plan = FakePlan(
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

    def messages(publish_run: PublishRun, _tally: SendTally, _interrupt: Interrupt) -> Iterator[Outgoing]:
        return _paced(fake_messages(plan), rate, publish_run.wait)

    deliver(SendOptions(**shared), messages, batch_size_max, total=events, seed=plan.seed)


def _yesterday() -> datetime:
    """Return the beginning of yesterday: recent, and constant all day, so that a seed repeats its events."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=1)


def _paced(
    messages: Iterable[Outgoing], rate: float | None, wait: Callable[[float], bool]
) -> Iterator[Outgoing]:
    """Yield messages at a constant rate per second; end when the wait is interrupted."""
    begun_at_s = time.monotonic()
    for number, message in enumerate(messages):
        ahead_s = 0.0 if rate is None else number / rate - (time.monotonic() - begun_at_s)
        if wait(ahead_s) if ahead_s > 0 else False:
            return
        yield message


COMMANDS = (fake,)
