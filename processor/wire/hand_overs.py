"""Ids of deliveries where the queue gives its messages none: a base, and the end that tells hand-overs apart.

base + "~" + 12 hex digits of one hand-over ─▶ delivery id
"""

import re
import secrets

HAND_OVER_LENGTH = 12
"""Hex digits at the end of a delivery id that tell one hand-over of a message from the next."""

_HAND_OVER = re.compile(r"~[0-9a-f]{12}\Z")


def hand_over(base: str) -> str:
    """Give the delivery id of one hand-over of a message."""
    return f"{base}~{secrets.token_hex(HAND_OVER_LENGTH // 2)}"


def base_of(delivery_id: str) -> str:
    """Give what all hand-overs of a message have in common; other queues' ids are that as a whole."""
    return _HAND_OVER.sub("", delivery_id)
