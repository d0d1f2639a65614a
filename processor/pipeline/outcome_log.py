"""Log one line for each settled delivery, without its payload."""

from collections.abc import Sequence

import structlog

from processor.model import Rejection, Settlement, Verdict
from processor.wire.formats import IDENTIFIER_LENGTH_MAX

log = structlog.get_logger(__name__)


def log_outcomes(verdicts: Sequence[Verdict], settlements: Sequence[Settlement]) -> None:
    """Log a batch after its commit, one settlement for each verdict in order.

    Lines of rejections have the claimed tenant, type and id, as the table has.
    """
    for verdict, settlement in zip(verdicts, settlements, strict=True):
        said = verdict.claimed if isinstance(verdict, Rejection) else verdict
        named = {
            "tenant_id": said.tenant_id,
            "event_type": said.event_type,
            "message_id": said.message_id,
            "producer": said.producer,
        }
        log.info(
            "delivery",
            outcome=settlement.outcome.value,
            reason=settlement.reason.value if settlement.reason else None,
            **{name: value and value[:IDENTIFIER_LENGTH_MAX] for name, value in named.items()},
            queue=settlement.delivery.queue,
            delivery_id=settlement.delivery.delivery_id,
        )
