"""Open files: each connection is one, and beyond the limit none is even refused."""

import resource

import structlog

_FILES_BESIDE = 256
"""Open files that are no client's: those of the queue, the database and the program itself."""

log = structlog.get_logger(__name__)


def connections_within(wanted: int) -> int:
    """Raise the limit of open files as far as we may; gives how many connections then fit, `wanted` at most.

    The log says so where they are fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + _FILES_BESIDE
    reachable = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    found = max(1, reachable - _FILES_BESIDE)
    if found < wanted:
        log.warning(
            "few_open_files",
            limit=reachable,
            connections=found,
            wanted=wanted,
            remedy=f"raise the hard limit of open files to {files} (ulimit -Hn, LimitNOFILE=)",
        )
    return found
