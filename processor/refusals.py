"""The rejections for which the database gives the cause: what it can't store, and what it has already."""

from datetime import datetime, timedelta

import psycopg

from processor.errors import Reason
from processor.model import Message, Rejection
from processor.sqlstates import name_of
from processor.wire import Claimed

UNREADABLE = (Reason.TOO_LARGE, Reason.NOT_UTF8, Reason.NOT_JSON, Reason.ENVELOPE_INVALID)
"""Reasons to reject by which a message's key is not known for certain."""

_CLOCKS_APART_MAX = timedelta(minutes=5)
"""How far the queue's clock may be before the database's; `processor check` complains from 2 s on.

What was stored within it is read for every redelivery whose key is in doubt, so it is not longer.
"""

_DATED_ANEW_MAX = timedelta(days=14)
"""How much older than it says a dead letter of a FIFO queue may be: SQS dates it anew when it moves it."""

_LIMITS = frozenset(("message_pkey", "message_id_fit", "message_producer_fit"))
"""What of our tables a row may break by its content alone; an index entry can be too large for its page."""

_UNSTORABLE_WORDS = {
    "54000": "something is too large for it, such as tenant, message id and producer together (2,700 bytes)",
    "54001": "the payload is nested too deeply for it",
    "23514": "a value does not fit its column",
}


def blames_content(error: psycopg.Error | UnicodeEncodeError) -> bool | None:
    """Say whether an error speaks of a row's content; None where it does not tell, and the row must be asked.

    A constraint or an index that is none of our limits was put there by somebody: no tenant can know of it.
    """
    if isinstance(error, UnicodeEncodeError) or error.sqlstate is None:
        return True
    name = error.diag.constraint_name
    return None if name is None else name in _LIMITS


def unstorable(message: Message, error: psycopg.Error | UnicodeEncodeError) -> Rejection:
    """Reject a message whose row PostgreSQL refuses for its content."""
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
    )


def id_conflict(message: Message, stored_delivery_id: str | None) -> Rejection:
    """Reject a message whose key is taken by one of other content."""
    words = (
        "another message with this tenant, message id and producer is stored, with other content "
        "(event type, payload or occurred_at); send new content under a new id"
    )
    return Rejection(
        message.delivery,
        message.registry_version,
        Reason.ID_CONFLICT,
        {"message": words, "stored_delivery_id": stored_delivery_id},
        _claimed_by(message),
    )


def _claimed_by(message: Message) -> Claimed:
    return Claimed(message.tenant_id, message.event_type, message.message_id, message.producer)


def key_in_doubt(rejection: Rejection) -> bool:
    """Say whether a delivery may be stored under a key that can't be read from it now."""
    received_before = rejection.delivery.receive_count > 1
    return not rejection.key_known or (rejection.reason in UNREADABLE and received_before)


def sent_after(rejection: Rejection) -> datetime:
    """Give a moment by the database's clock at which the queue did not have the delivery yet."""
    delivery = rejection.delivery
    dated_anew = rejection.reason is Reason.DEAD_LETTERED and delivery.queue.endswith(".fifo")
    return delivery.sent_at - _CLOCKS_APART_MAX - (_DATED_ANEW_MAX if dated_anew else timedelta(0))
