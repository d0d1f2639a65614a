"""In which turn, and in whose company, deliveries are saved: a suspect alone, and a group in its order."""

from collections.abc import Callable, Sequence
from enum import Enum, auto


class SaveStage(Enum):
    """When a delivery is saved, if what is before it in its group lets it."""

    FIRST = auto()
    """With all others of this kind."""
    SECOND = auto()
    """With all others of this kind, after the first."""
    ALONE = auto()
    """By itself, last."""


def parts_in_order(kinds: Sequence[SaveStage], group: Callable[[int], str | None]) -> list[list[int]]:
    """Part positions into what is saved together; the parts are to be saved one after the other.

    Only what comes later in the same `group` (None: in none) has to wait for what is before it, so that a
    group keeps its order: it may come in a later part than its kind, or join what is SECOND.
    """
    if kinds.count(SaveStage.FIRST) == len(kinds):
        # Nearly always, and then there is nothing to part.
        return [list(range(len(kinds)))] if kinds else []
    # The first two parts are those of their kinds; after them, one begins with each that is alone.
    parts: list[list[int]] = [[], []]
    ends_alone = True
    not_before: dict[str, int] = {}
    for position, kind in enumerate(kinds):
        name = group(position)
        least = 0 if name is None else not_before.get(name, 0)
        if kind is SaveStage.ALONE:
            parts.append([position])
            ends_alone = True
            place = len(parts) - 1
        else:
            place = max(least, 0 if kind is SaveStage.FIRST else 1)
            if place > 1:
                if ends_alone:
                    parts.append([])
                    ends_alone = False
                place = len(parts) - 1
            parts[place].append(position)
        if name is not None and place > 0:
            not_before[name] = place
    return [part for part in parts if part]
