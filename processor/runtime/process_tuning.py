"""How the process sits on the machine: on one core, with a patient garbage collector and a tidy heap.

Python runs one thread at a time. Threads that wake on different cores pay for handing that right across:
measured on two shared cores, one pipeline moved 7,400 to 7,900 messages/s on both and 9,400 to 13,700 on one.
"""

import ctypes
import gc
import os
from contextlib import suppress

SMALL_MACHINE_CORES_MAX = 4
"""Up to so many cores `auto` keeps to one: on a larger machine a neighbour may keep that one busy."""

_ALLOCATIONS_PER_COLLECTION = 50_000
"""Objects made between two collections. Python's own 700 suit programs that make fewer: ten
to twenty per cent more messages a second were measured with this, on two cores."""


def tune_process(keep_to_one_core: str, place: int) -> int | None:
    """Keep to one core if asked to, and collect garbage less often; gives the core, or None.

    `keep_to_one_core` is the setting (auto, on, off); `place` tells processes side by side apart, so that
    they take different cores. Where the system can't bind a process (macOS) nothing is bound.
    """
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, 50, 50)
    # What was imported lives for ever: it need not be looked through each time.
    gc.freeze()
    _return_large_blocks()
    if keep_to_one_core == "off" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1 or (keep_to_one_core == "auto" and len(cores) > SMALL_MACHINE_CORES_MAX):
        return None
    core = cores[place % len(cores)]
    try:
        # Threads that exist already keep their cores; those that are made from now on inherit ours.
        os.sched_setaffinity(0, {core})
    except OSError:
        # Some sandboxes forbid it. It is only about speed.
        return None
    return core


_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 128 * 1024


def _return_large_blocks() -> None:
    """Have the C library return blocks of 128 KiB and more to the system at once (mallopt(3)).

    By itself it raises that threshold as it goes, up to 32 MiB, and keeps what one thread has freed for that
    thread: with bodies of 1 MiB a process of eight threads then held 185 MiB, and so 119.
    """
    # Where the C library is another than glibc there is nothing to say to it.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
