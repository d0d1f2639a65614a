"""Register unknown tenants during a save, if the rules of their queue allow it.

verdicts ─▶ new_tenants? ─▶ register_tenants: a transaction of its own ─▶ a newer registry ─▶ verdicts again

The registration stays even if the save fails: the delivery is still in its queue and is stored the next time.
Only an event that is valid otherwise registers its tenant, so that garbage registers none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import structlog

from processor.model import Rejection, Verdict
from processor.runtime import metrics

log = structlog.get_logger(__name__)

_NAMED_MAX = 50
"""Tenants that one batch names in the log; others are counted. `processor tenant list` shows all."""


def register_new_tenants(
    connection: psycopg.Connection[Any],
    sql: Mapping[str, str],
    verdicts: Sequence[Verdict],
) -> None:
    """Register the unknown tenants of the verdicts that were made with the current registry.

    The database enforces the limit and the tenants of each queue. Raises psycopg's errors.
    """
    names: dict[tuple[str, int], set[str]] = {}
    for verdict in verdicts:
        if isinstance(verdict, Rejection) and verdict.new_tenant is not None:
            judged = verdict.delivery.queue, verdict.registry_version
            names.setdefault(judged, set()).add(verdict.new_tenant)
    for (queue, version), new_tenants in sorted(names.items()):
        asked = {"queue": queue, "names": sorted(new_tenants), "version": version}
        rows = connection.execute(sql["register_tenants"], asked).fetchall()
        registered = [name for (name,) in rows]
        metrics.tenants_registered.inc(len(registered))
        for name in registered[:_NAMED_MAX]:
            log.info("tenant_registered", tenant_id=name, queue=queue)
        if len(registered) > _NAMED_MAX:
            log.info("tenants_registered", count=len(registered), queue=queue)
