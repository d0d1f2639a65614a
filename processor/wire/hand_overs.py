"""Makes delivery ids for queues without message ids: a base, and a suffix for each receive.

base + "~" + 12 hex digits of one receive ─▶ delivery id
"""

import re
import secrets

HAND_OVER_LENGTH = 12
"""Hex digits at the end of a delivery id, different in each receive of a message."""

_HAND_OVER = re.compile(r"~[0-9a-f]{12}\Z")


def hand_over(base: str) -> str:
    """Return a delivery id for one receive of a message."""
    return f"{base}~{secrets.token_hex(HAND_OVER_LENGTH // 2)}"


def base_of(delivery_id: str) -> str:
    """Return the part that all receives of a message share; for other queues the whole id."""
    return _HAND_OVER.sub("", delivery_id)
