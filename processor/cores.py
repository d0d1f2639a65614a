"""How the process sits on the machine: on one core, and with a patient garbage collector.

Python runs one thread at a time. Threads that wake on different cores pay for handing that right across:
measured on two shared cores, one pipeline moved 1,700 to 2,000 messages/s on both and 2,650 to 3,000 on one.
"""

import gc
import os

SMALL_MACHINE_CORES_MAX = 4
"""Up to so many cores `auto` keeps to one: on a larger machine a neighbour may keep that one busy."""

_ALLOCATIONS_PER_COLLECTION = 50_000
"""Objects made between two collections. Python's own 700 suit programs that make fewer: ten
to twenty per cent more messages a second were measured with this, on two cores."""


def settle_down(keep_to_one_core: str, place: int) -> int | None:
    """Keep to one core if asked to, and collect garbage less often; gives the core, or None.

    `keep_to_one_core` is the setting (auto, on, off); `place` tells processes side by side apart, so that
    they take different cores. Where the system can't bind a process (macOS) nothing is bound.
    """
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, 50, 50)
    # What was imported lives for ever: it need not be looked through each time.
    gc.freeze()
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
