"""Tune the process: keep to one CPU core, collect garbage less often, and return freed memory.

Python runs one thread at a time, and passing the interpreter lock between cores is expensive: measured on two
shared cores, one pipeline moved 7,400 to 7,900 messages/s on both and 9,400 to 13,700 on one.
"""

import ctypes
import gc
import os
from contextlib import suppress

SMALL_MACHINE_CORES_MAX = 4
"""The largest machine on which `auto` keeps to one core; on others another process may use that core."""

_ALLOCATIONS_PER_COLLECTION = 50_000
"""Allocations between two collections. Python's default of 700 is for programs with fewer objects: this
value gave 10 to 20 % more messages a second, measured on two cores."""


def tune_process(keep_to_one_core: str, place: int) -> int | None:
    """Collect garbage less often and keep to one core if configured; return the core, or None.

    `keep_to_one_core` is the setting (auto, on, off). `place` is the number of the process, so that parallel
    processes take different cores. Systems that can't bind a process (macOS) are left alone.
    """
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, 50, 50)
    # Imported objects are never freed, so the collector need not traverse them.
    gc.freeze()
    _return_large_blocks()
    if keep_to_one_core == "off" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1 or (keep_to_one_core == "auto" and len(cores) > SMALL_MACHINE_CORES_MAX):
        return None
    core = cores[place % len(cores)]
    try:
        # Existing threads keep their cores; new ones inherit this one.
        os.sched_setaffinity(0, {core})
    except OSError:
        # Some sandboxes forbid it. Only speed is lost.
        return None
    return core


_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 128 * 1024


def _return_large_blocks() -> None:
    """Make the C library return blocks of 128 KiB and more to the system at once (mallopt(3)).

    By default the threshold grows up to 32 MiB, and memory freed by a thread is kept for that thread: with
    bodies of 1 MiB a process of eight threads used 185 MiB, and 119 MiB with this.
    """
    # Other C libraries than glibc lack mallopt.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
