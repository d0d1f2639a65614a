"""processor demo and processor dev: a local stack without a cloud."""

from pathlib import Path

import click

from processor.cli.paths import NamedPath


@click.command()
@click.option(
    "--events", type=click.IntRange(1, 1_000_000), default=5000, show_default=True, help="How many to send."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed sends the same events.")
def demo(events: int, seed: int) -> None:
    """Run a complete demo once: local PostgreSQL and SQS, producers, the processor, and an audit.

    The demo ends by itself, with exit code 0 only if the audit holds.
    """
    from processor.devstack.demo import run_demo  # noqa: PLC0415 - an extra, imported when asked for
    from processor.devstack.servers.binaries import require_extra  # noqa: PLC0415 - an extra

    require_extra()
    raise SystemExit(run_demo(events=events, seed=seed))


@click.command()
@click.option(
    "--env-file",
    type=NamedPath(dir_okay=False, path_type=Path),
    help="Write the settings to this file as KEY=VALUE lines once the stack is ready.",
)
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs in .processor/ first.")
def dev(env_file: Path | None, fresh: bool) -> None:
    """Run PostgreSQL, SQS and the processor on 127.0.0.1 until Ctrl-C."""
    from processor.devstack.dev import run_dev  # noqa: PLC0415 - an extra, imported when asked for
    from processor.devstack.servers.binaries import require_extra  # noqa: PLC0415 - an extra

    require_extra()
    raise SystemExit(run_dev(env_file=env_file, fresh=fresh))


COMMANDS = [demo, dev]
