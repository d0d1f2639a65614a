"""Formats values and names for messages, and finds similar names."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from processor.schemas.schema_text import schema_text

SHOWN_MAX = 60


def shortened(text: str, characters_max: int = SHOWN_MAX) -> str:
    """Cut a text that is too long."""
    return text if len(text) <= characters_max else text[:characters_max] + "…"


def shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Serialize a value as JSON, and cut it if it is too long."""
    return shortened(schema_text(value))


def listed(texts: Sequence[str], count_max: int = 5) -> str:
    """Join the first texts, and say how many more there are."""
    more = f" and {len(texts) - count_max} more" if len(texts) > count_max else ""
    return ", ".join(texts[:count_max]) + more


def nearest(text: str, known: Sequence[str], cutoff: float = 0.8) -> str | None:
    """Return the most similar known name, or None; `cutoff` is the least similarity, from 0 to 1."""
    plain = {_plain(word): word for word in known}
    close = get_close_matches(_plain(text[:SHOWN_MAX]), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace("$", "")
