"""The limit of open files: each connection needs one, and beyond the limit accept() fails."""

import resource

import structlog

_FILES_BESIDE = 256
"""Open files that are not client connections: those of the queue, the database and the program itself."""

log = structlog.get_logger(__name__)


def connections_within(wanted: int) -> int:
    """Raise the limit of open files as far as permitted; return how many connections fit, at most `wanted`.

    Fewer connections than `wanted` are logged.
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
