"""The resource usage of a process and all its children, read from Linux's /proc."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass(frozen=True)
class _Stat:
    """A line of /proc/PID/stat: the parent, and CPU time including that of children that have ended."""

    parent: int
    cpu_s: float


def tree(pid: int) -> list[int]:
    """Give the process and all its descendants that are alive."""
    stats = _stats()
    children: dict[int, list[int]] = defaultdict(list)
    for child, stat in stats.items():
        children[stat.parent].append(child)
    found, left = [], [pid] if pid in stats else []
    while left:
        found.append(left.pop())
        left += children[found[-1]]
    return found


def cpu_s(pid: int) -> float:
    """Give the CPU time of the process and its descendants, those that have ended included."""
    stats = _stats()
    return sum(stats[member].cpu_s for member in tree(pid) if member in stats)


def rss_peak_mib(pid: int) -> float:
    """Give the sum of what the process and its descendants had resident at their peaks.

    Of one that has children, which may be its forks, only its share of now: what they have in common would
    else count twice.
    """
    members = tree(pid)
    parents = {stat.parent for member, stat in _stats().items() if member in members}
    return (
        sum(
            _field_kib(member, "Pss", "smaps_rollup") if member in parents else _field_kib(member, "VmHWM")
            for member in members
        )
        / 1024
    )


def rss_mib(pid: int) -> float:
    """Give what the process and its descendants have resident now, each page once."""
    return sum(_field_kib(member, "Pss", "smaps_rollup") for member in tree(pid)) / 1024


def _stats() -> dict[int, _Stat]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name, in brackets, may hold anything; what follows the last bracket is regular.
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            found[int(folder.name)] = _Stat(int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_S)
    return found


def _field_kib(pid: int, name: str, file: str = "status") -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)
