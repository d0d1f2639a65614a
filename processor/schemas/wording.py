"""How values, names and texts stand in a message: short, and with the word that may be meant."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from processor.schemas.schema_text import schema_text

SHOWN_MAX = 60


def shortened(text: str, characters_max: int = SHOWN_MAX) -> str:
    """Cut a text where it is long."""
    return text if len(text) <= characters_max else text[:characters_max] + "…"


def shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value of a schema as JSON, cut where it is long."""
    return shortened(schema_text(value))


def listed(texts: Sequence[str], count_max: int = 5) -> str:
    """Write the first of some texts, and how many more there are."""
    more = f" and {len(texts) - count_max} more" if len(texts) > count_max else ""
    return ", ".join(texts[:count_max]) + more


def nearest(text: str, known: Sequence[str], cutoff: float = 0.8) -> str | None:
    """Give the known word that somebody may have meant, or None; `cutoff` says how alike, up to 1."""
    plain = {_plain(word): word for word in known}
    close = get_close_matches(_plain(text[:SHOWN_MAX]), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace("$", "")
