"""Which core a process keeps to, as it is told."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from processor.runtime import process_tuning as cores
cores.SMALL_MACHINE_CORES_MAX = int(sys.argv[2])
core = cores.tune_process(sys.argv[1], int(sys.argv[3]))
print(json.dumps([core, sorted(os.sched_getaffinity(0))]))
"""
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
several = pytest.mark.skipif(len(CORES) < 2, reason="one core, or a system that can't bind a process to one")


def settled(setting: str, *, small_max: int = 4096, place: int = 0) -> tuple[int | None, list[int]]:
    """In a process of its own: what was chosen, and the cores that are left to it."""
    words = [sys.executable, "-c", SCRIPT, setting, str(small_max), str(place)]
    core, left = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return core, left


@several
def test_processes_side_by_side_take_different_cores() -> None:
    assert [settled("on", place=place) for place in range(2)] == [(core, [core]) for core in CORES[:2]]


@several
def test_auto_keeps_to_one_core_on_a_small_machine_alone() -> None:
    assert settled("auto") == (CORES[0], [CORES[0]])
    assert settled("auto", small_max=1) == (None, CORES)


def test_off_leaves_every_core() -> None:
    assert settled("off") == (None, CORES)
