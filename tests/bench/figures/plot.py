"""The results as one plot: throughput, cost and latency, side by side."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.contestants import OURS
from tests.bench.faults import LoadError
from tests.bench.figures.latency import Latency
from tests.bench.figures.report import LIMITS, machine_lines
from tests.bench.figures.results import Results
from tests.bench.race import Race

OUR_COLOUR, PEER_COLOUR, LIMIT_COLOUR = "#1b6ca8", "#b0b7bf", "#e3dccb"


def draw(results: Results, path: Path) -> Path:
    """Draw what there is of race and latency as SVG; raises LoadError where matplotlib is missing."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - of the extra `load`, and slow to import
    except ImportError:
        raise LoadError("no plot: matplotlib is not installed; try: pip install '.[load]'") from None
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "event-processor"})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = list(_panels(results))
    heights = [0.6 + 0.3 * rows for rows, _ in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, sum(heights) + 0.8), squeeze=False, height_ratios=heights
    )
    for (_, paint), [axis] in zip(panels, axes, strict=True):
        paint(axis)
    figure.text(0.01, 0.004, "\n".join(_wrapped(machine_lines(results.machine))), fontsize=6.5, color="#555")
    figure.tight_layout(rect=(0, 0.6 / figure.get_figheight(), 1, 1))
    figure.savefig(path)
    plt.close(figure)
    return path


def _panels(results: Results) -> Iterator[tuple[int, Callable[[Any], None]]]:
    """Give each panel as the number of its bars and what paints it."""
    race, latencies = results.race, results.latencies
    if race:
        runners = [name for name in race.names if name not in LIMITS]
        walls = [name for name in race.names if name in LIMITS]
        for names, field, title in (
            (runners, "rate_per_s", "messages/s, more is better"),
            (runners, "client_cpu_s", "client CPU-seconds per 1,000 messages, less is better"),
            (walls, "rate_per_s", "the walls: messages/s of the queue alone and of the database alone"),
        ):
            if names:
                yield len(names), partial(_bars, race=race, names=names, field=field, title=title)
    if latencies:
        yield len(latencies), partial(_latencies, latencies=latencies)


def _bars(axis: Any, race: Race, names: Sequence[str], field: str, title: str) -> None:
    """One bar per entry: the median, with a whisker from the least to the greatest."""
    # The best on top, which is where the place is greatest.
    less_is_better = field == "client_cpu_s"
    names = sorted(
        names,
        key=lambda name: median(getattr(run, field) for run in race.runs(name)),
        reverse=less_is_better,
    )
    for place, name in enumerate(names):
        values = [getattr(run, field) for run in race.runs(name)]
        middle = median(values)
        colour = LIMIT_COLOUR if name in LIMITS else OUR_COLOUR if name.startswith(OURS) else PEER_COLOUR
        axis.barh(place, middle, color=colour)
        axis.plot([min(values), max(values)], [place, place], color="#333", linewidth=1)
        text = f"{middle:,.0f}" if middle >= 10 else f"{middle:.3f}"
        axis.annotate(text, (max(values), place), xytext=(5, 0), textcoords="offset points", va="center")
    axis.set_yticks(range(len(names)), names)
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.2f}".rstrip("0").rstrip("."))
    _plain(axis, title)


def _latencies(axis: Any, latencies: Sequence[Latency]) -> None:
    """A line from p50 to p99 for each contestant and rate, on a logarithmic scale, which has no beginning."""
    rates = list(dict.fromkeys(one.rate_per_s for one in latencies))
    names = list(dict.fromkeys(one.name for one in latencies))
    for one in latencies:
        place = rates.index(one.rate_per_s) + names.index(one.name) * 0.8 / len(names)
        colour = OUR_COLOUR if one.name.startswith(OURS) else "#7d868f"
        axis.plot([one.p50_ms, one.p99_ms], [place, place], color=colour, linewidth=4, alpha=0.4)
        axis.plot(one.p50_ms, place, "o", color=colour)
        axis.plot(one.p99_ms, place, "|", color=colour, markersize=9, markeredgewidth=2)
        axis.annotate(
            f"{one.name}: p50 {one.p50_ms:.1f}, p99 {one.p99_ms:.1f}",
            (one.p99_ms, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_yticks(
        [place + 0.4 - 0.4 / len(names) for place in range(len(rates))], [f"{r:,}/s" for r in rates]
    )
    axis.invert_yaxis()
    axis.margins(y=0.08)
    # The words beside the last line need room too.
    axis.set_xlim(right=max(one.p99_ms for one in latencies) * 6)
    _plain(axis, "milliseconds from send to commit: p50 (dot) to p99 (bar), logarithmic, less is better")


def _plain(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _wrapped(lines: Iterable[str], width: int = 150) -> list[str]:

    return [piece for line in lines for piece in textwrap.wrap(line, width)]
