"""The cost of growth: `python -m tests.bench.growth`, or `make growth`."""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click
import psycopg

from processor.devstack.servers.children import DevstackError
from tests.bench.growth import report
from tests.bench.growth.cost import ROOMY, SETTINGS, measure_cost, measure_sustained
from tests.bench.growth.fill import Filler, Grown
from tests.bench.growth.meter import spreads
from tests.bench.growth.named import named
from tests.bench.growth.partitions import TABLES, measure_inserts, measure_planning, measure_removal
from tests.bench.growth.questions import ask, better_questions, prepare_questions, ten_questions
from tests.bench.growth.samples import Ids
from tests.bench.growth.server import GrowthServer, require_room

FOLDER = Path(".processor/load")
ROW_BYTES = 1000
"""On disk: 671 bytes of the plain table, 860 of the one by range, and a share of the WAL."""
SPARE_BYTES = 6_000_000_000
ROWS_MIN = 10_000

# The largest that the kinds of partitions are compared at: three tables more to fill.
PARTITIONED_ROWS_MAX = 5_000_000


def _say(line: str) -> None:
    click.echo(line, err=True)


@dataclass
class Run:
    """One run: what it was asked for, and what it found so far."""

    server: GrowthServer
    sizes: list[int]
    ids: list[Ids]
    rounds: int
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def partitioned_sizes(self) -> list[int]:
        return [rows for rows in self.sizes if rows <= PARTITIONED_ROWS_MAX] or [min(self.sizes)]

    def kinds(self, steps: set[str]) -> list[tuple[Grown, list[int]]]:
        """Give the tables that the steps need, the ones with the most rows first."""
        kinds = [(Grown("plain", ids), [0, *self.sizes]) for ids in self.ids]
        if steps & {"partitions", "removal"}:
            kinds += [
                (Grown(table, "random"), self.partitioned_sizes) for table in TABLES if table != "plain"
            ]
        return kinds

    def largest(self) -> str:
        return Grown("plain", self.ids[0]).database(self.sizes[-1])


def _fill(run: Run) -> None:
    """Make every table; whatever else is asked for makes what it needs itself."""
    Filler(run.server, _say).fill(run.kinds({"partitions"}))


def _cost(run: Run) -> None:
    costs = measure_cost(run.server, [0, *run.sizes], run.ids, run.rounds, _say)
    run.found["cost"] = [
        {"ids": ids, "rows": rows, "batch": batch} | _plain(spreads(found))
        for (ids, rows, batch), found in costs.items()
    ]


def _sustained(run: Run) -> None:
    run.found["sustained"] = measure_sustained(run.server, run.sizes[-1:], run.ids, SETTINGS, _say)


def _roomy(run: Run) -> None:
    run.found["roomy"] = measure_sustained(run.server, [0, *run.sizes], run.ids, [ROOMY], _say)


def _sizes(run: Run) -> None:
    existing = run.server.databases()
    run.found["sizes"] = []
    for table in TABLES:
        for ids in run.ids:
            for rows in run.sizes:
                name = Grown(table, ids).database(rows)
                if name in existing:
                    run.found["sizes"] += [
                        {"table": table, "ids": ids, "rows": rows} | part for part in _parts(run, name)
                    ]


def _parts(run: Run, database: str) -> list[dict[str, Any]]:
    with run.server.connect(database) as connection:
        counted = connection.execute("SELECT count(*) FROM message").fetchone()
        assert counted is not None
        found = connection.execute(named("measure")["sizes"]).fetchall()
    return [
        {"messages": counted[0], "relation": relation, "bytes": size, "toast_bytes": toast, "map_bytes": maps}
        for relation, size, toast, maps in found
    ]


def _questions(run: Run) -> None:
    with run.server.connect(run.largest()) as connection:
        prepare_questions(connection)
    asked = ask(run.server, run.largest(), [*ten_questions(), *better_questions()], _say)
    run.found["questions"] = [asdict(answer) for answer in asked]


def _partitions(run: Run) -> None:
    costs = measure_inserts(run.server, run.partitioned_sizes, run.rounds, _say)
    run.found["partitions"] = [
        {"table": table, "rows": rows} | _plain(spreads(found)) for (table, rows), found in costs.items()
    ]
    planning = measure_planning(run.server, run.partitioned_sizes[-1])
    run.found["planning"] = [{"table": table} | asdict(found) for table, found in planning.items()]


def _removal(run: Run) -> None:
    removals = measure_removal(run.server, run.partitioned_sizes[-1], _say)
    run.found["removal"] = [{"table": table} | asdict(found) for table, found in removals.items()]


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in figures.items()}


STEPS: Mapping[str, Callable[[Run], None]] = {
    "fill": _fill,
    # Before anything is added to the tables.
    "sizes": _sizes,
    "questions": _questions,
    "cost": _cost,
    "sustained": _sustained,
    "roomy": _roomy,
    "partitions": _partitions,
    "removal": _removal,
}


def _figures(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    """Read numbers of rows, and give them from small to large."""
    try:
        figures = sorted({int(part.replace("_", "")) for part in value.split(",")})
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 1000000,5000000") from None
    if figures[0] < ROWS_MIN:
        raise click.BadParameter(f"fewer than {ROWS_MIN} rows say nothing about growth; ask for more")
    return figures


def _steps(ctx: click.Context, param: click.Parameter, value: str) -> set[str]:
    """Read the names of steps."""
    wanted = {step.strip() for step in value.split(",")}
    if unknown := wanted - STEPS.keys():
        raise click.BadParameter(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    return wanted


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--rows",
    callback=_figures,
    metavar="N,N,...",
    default="1000000,5000000,10000000",
    show_default=True,
    help="Sizes of the table to measure at; the empty table is always measured too.",
)
@click.option(
    "--ids",
    type=click.Choice([*get_args(Ids), "both"]),
    default="both",
    show_default=True,
    help="Message ids: random (UUID version 4), time (they begin with the time, as version 7 does).",
)
@click.option(
    "--steps",
    callback=_steps,
    metavar="STEP,...",
    default=",".join(STEPS),
    show_default=True,
    help="What to do; each step makes the tables that it needs, and fill makes all.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 50),
    default=5,
    show_default=True,
    help="Rounds of the inserts; each visits every table once.",
)
@click.option(
    "--keep", is_flag=True, help="Keep the filled tables for the next run instead of removing them."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDER,
    show_default=True,
    help="Where the tables (in growth/) and the results (in results/) are.",
)
def main(rows: list[int], ids: str, steps: set[str], rounds: int, keep: bool, folder: Path) -> None:
    """Measure what a message costs, and a question, as the table grows, and whether partitions would help.

    Starts a PostgreSQL of its own (fsync on), fills tables of each size on the server, and then saves through
    the processor's own Store. Prints tables, and saves all figures as JSON. The default sizes take long, and
    much disk, which is looked for first; nothing else should run meanwhile. It begins afresh unless a run
    with --keep came before. Linux only: the server's CPU time is read from /proc.
    """
    # A closing terminal or an orchestrator ends us by these; what is in `finally` must be done all the same.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    directory = folder / "growth"
    run = Run(GrowthServer(directory), rows, [*get_args(Ids)] if ids == "both" else [ids], rounds)  # type: ignore[list-item]
    try:
        _measure(run, steps, directory)
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the server is stopped") from None
    except (DevstackError, OSError, psycopg.Error) as error:
        raise SystemExit(f"stopped: {str(error).splitlines()[0]}") from error
    finally:
        run.server.postgres.stop()
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
        if run.found:
            _save(run, folder / "results")


def _measure(run: Run, wanted: set[str], directory: Path) -> None:
    fresh = not (directory / "initialised").exists()
    kinds = run.kinds(wanted)
    if fresh:
        require_room(directory, SPARE_BYTES + ROW_BYTES * sum(sum(sizes) for _, sizes in kinds))
    run.server.postgres.start()
    Filler(run.server, _say).fill(kinds)
    for name, step in STEPS.items():
        if name in wanted:
            step(run)


def _save(run: Run, folder: Path) -> None:
    """Print what was found, and keep it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"growth-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(run.found, indent=2, default=str) + "\n", encoding="utf-8")
    report.show(run.found)
    click.echo(f"all figures: {path}")


if __name__ == "__main__":
    main()
