"""Make the rejections that the database causes: unstorable rows, timeouts and id conflicts."""

import psycopg

from processor.database.sqlstates import name_of
from processor.errors import Reason
from processor.model import Message, Rejection, Verdict
from processor.wire.beside import AMQP_TIMESTAMP
from processor.wire.formats import Claimed

UNREADABLE = (Reason.TOO_LARGE, Reason.NOT_UTF8, Reason.NOT_JSON, Reason.ENVELOPE_INVALID)
"""Reasons for which the message key is uncertain."""

_LIMITS = frozenset(("message_pkey", "message_id_fit", "message_producer_fit", "voided_pkey"))
"""Constraints and indexes that the content of a row can violate; an index entry can exceed its page."""

_UNSTORABLE_WORDS = {
    "54000": "something is too large for it, such as tenant, message id and producer together (2,700 bytes), "
    "its own or those of the message that it voids",
    "54001": "the payload is nested too deeply for it",
    "23514": "a value does not fit its column",
}


def blames_content(error: psycopg.Error | UnicodeEncodeError) -> bool | None:
    """Return whether an error blames the content of a row; None if unknown, and the row must be tested.

    Other constraints and indexes were added by an operator, and no tenant can know them.
    """
    if isinstance(error, UnicodeEncodeError) or error.sqlstate is None:
        return True
    name = error.diag.constraint_name
    return None if name is None else name in _LIMITS


def unstorable(message: Message, error: psycopg.Error | UnicodeEncodeError) -> Rejection:
    """Return the rejection of a message whose row PostgreSQL refuses for its content."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    words = _UNSTORABLE_WORDS.get(
        sqlstate or "",
        "jsonb takes no \\u0000 and no half of a surrogate pair, in payload or context",
    )
    return Rejection(
        message.delivery,
        message.registry_version,
        Reason.UNSTORABLE,
        {"message": f"PostgreSQL refuses the row: {words}", "error": name_of(error)},
        _claimed_by(message),
        final=True,
        proven_tenant=message.proven_tenant,
    )


def too_slow(verdict: Verdict, error: psycopg.Error | UnicodeEncodeError, tries: int) -> Rejection:
    """Return the rejection of a delivery whose save times out repeatedly while the database answers others.

    No earlier outcome of the delivery is looked up any more, since the lookup may cause the timeout.
    """
    if isinstance(verdict, Rejection):
        claimed, key_known = verdict.claimed, verdict.key_known and verdict.reason not in UNREADABLE
        today: dict[str, object] = {"reason": verdict.reason.value, "message": verdict.detail.get("message")}
    else:
        claimed, key_known, today = _claimed_by(verdict), True, {"message": "stored"}
    words = (
        f"the database took longer than it may over this delivery alone, {tries} times, while it answered "
        "others; find out why (locks, triggers, indexes), then replay: if it is stored already, it is found"
    )
    detail = {"message": words, "error": name_of(error), "verdict_today": today}
    return Rejection(
        verdict.delivery,
        verdict.registry_version,
        Reason.UNSTORABLE,
        detail,
        claimed,
        key_known,
        searched=False,
        final=True,
        proven_tenant=verdict.proven_tenant,
    )


def id_conflict(message: Message, stored_delivery_id: str | None) -> Rejection:
    """Return the rejection of a message whose key is stored with other content."""
    words = (
        "another message with this tenant, message id and producer is stored, with other content "
        "(event type, payload or occurred_at); send new content under a new id"
    )
    stamp = message.delivery.attributes.get(AMQP_TIMESTAMP)
    if message.occurred_at is not None and message.occurred_at.isoformat() == stamp:
        words += (
            "; its occurred_at is the property timestamp, which some clients set anew at each publish: to "
            "publish it again, send the same timestamp, or name occurred_at in the event"
        )
    return Rejection(
        message.delivery,
        message.registry_version,
        Reason.ID_CONFLICT,
        {"message": words, "stored_delivery_id": stored_delivery_id},
        _claimed_by(message),
        proven_tenant=message.proven_tenant,
    )


def _claimed_by(message: Message) -> Claimed:
    return Claimed(message.tenant_id, message.event_type, message.message_id, message.producer)


def may_be_stored(verdict: Verdict) -> bool:
    """Return whether an earlier delivery may have stored this one in `message`, under any key."""
    if isinstance(verdict, Rejection):
        return verdict.searched and (verdict.delivery.redelivered or not verdict.key_known)
    return verdict.delivery.redelivered
