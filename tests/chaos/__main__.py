"""`make chaos`: every scenario, with a printed seed, and a table at the end.

python -m tests.chaos chaos [NAME ...] [--seed N] [--short]
python -m tests.chaos soak [--messages N] [--kills N]
"""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.run import Result, a_seed, run
from tests.chaos.scenarios import ALL
from tests.chaos.soak import soak


@click.group()
def cli() -> None:
    """Try the promise, hard."""


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--seed", type=int, help="Of a run that is to be repeated; a new one without it.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to this file, too."
)
@click.option("--short", is_flag=True, help="As many faults as inside `make test`.")
def chaos(names: tuple[str, ...], seed: int | None, markdown: Path | None, short: bool) -> None:
    """Run the scenarios whose names contain one of NAMES, all without; exit code 3 if one fails."""
    chosen = [each for each in ALL if not names or any(name in each.title for name in names)]
    if short:
        chosen = [each for each in chosen if each.rounds_short]
    seed = a_seed() if seed is None else seed
    click.echo(f"seed {seed}, {len(chosen)} scenarios")
    results = []
    for scenario in chosen:
        result = run(scenario, seed, short=short)
        results.append(result)
        click.echo(f"{_mark(result)}  {scenario.title}  {result.trouble}")
    _print(results)
    if markdown is not None:
        markdown.write_text(_markdown(results, seed))
    for result in results:
        if result.left_out:
            click.echo(f"{result.scenario.title} was left out: {result.left_out}")
    sys.exit(0 if all(result.holds or result.left_out for result in results) else 3)


def _mark(result: Result) -> str:
    if result.left_out:
        return "--"
    return "ok" if result.holds else "!!"


@cli.command("soak")
@click.option("--messages", type=int, default=1_000_000, show_default=True)
@click.option("--kills", type=int, default=1000, show_default=True, help="At least so many.")
@click.option(
    "--pause", "pause_s", type=float, default=0.4, show_default=True, help="Between two kills, seconds."
)
@click.option("--seed", type=int, help="Of a run that is to be repeated; a new one without it.")
def soak_command(messages: int, kills: int, pause_s: float, seed: int | None) -> None:
    """Kill processes all the time while many messages pass; exit code 3 if the audit does not hold."""
    soaked = soak(messages, kills, pause_s, a_seed() if seed is None else seed)
    click.echo(soaked.text())
    sys.exit(0 if soaked.holds else 3)


_HEADINGS = ("", "scenario", "faults", "messages", "redelivered", "recovery s, p50", "max")


def _cells(result: Result) -> tuple[str, ...]:
    if result.left_out:
        return _mark(result), result.scenario.title, "", "", "", "", ""
    return (
        _mark(result),
        result.scenario.title,
        f"{result.faults:,}",
        f"{result.messages:,}",
        f"{result.redeliveries:,}",
        f"{result.recovery_p50_s:.1f}",
        f"{result.recovery_max_s:.1f}",
    )


def _print(results: list[Result]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading)
    for result in results:
        table.add_row(*_cells(result))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _markdown(results: list[Result], seed: int) -> str:
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(_cells(result) for result in results)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([*lines, "", f"Seed {seed}, {datetime.now(UTC):%-d %B %Y}, {machine}.", ""])


if __name__ == "__main__":
    cli()
