"""A line of the log for each outcome, for those who check by reading: who and why, no word of the payload.

Off unless asked for: senders choose the ids in it, and a line for each event costs as much as to judge it.
"""

from collections.abc import Sequence

import structlog

from processor.model import Message, Settlement, Verdict

_LENGTH_MAX = 256

log = structlog.get_logger(__name__)


def log_outcomes(verdicts: Sequence[Verdict], settlements: Sequence[Settlement]) -> None:
    """Write a line for each delivery of a batch that is committed; what nobody could read is left out."""
    for verdict, settlement in zip(verdicts, settlements, strict=True):
        source = verdict if isinstance(verdict, Message) else verdict.claimed
        told = {
            "reason": settlement.reason and settlement.reason.value,
            "queue": settlement.delivery.queue,
            "delivery_id": settlement.delivery.delivery_id,
            "tenant_id": source.tenant_id,
            "event_type": source.event_type,
            "message_id": source.message_id,
            "producer": source.producer,
        }
        log.info(
            "outcome",
            outcome=settlement.outcome.value,
            **{name: value[:_LENGTH_MAX] for name, value in told.items() if value},
        )
