"""Decide which deliveries are saved together and in which order: suspects alone, groups in order."""

from collections.abc import Callable, Sequence
from enum import Enum, auto


class SaveStage(Enum):
    """When a delivery is saved, unless its group requires a later part."""

    FIRST = auto()
    """Together with all others of this stage."""
    SECOND = auto()
    """Together with all others of this stage, after the first."""
    ALONE = auto()
    """Alone, and last."""


def parts_in_order(kinds: Sequence[SaveStage], group: Callable[[int], str | None]) -> list[list[int]]:
    """Split positions into parts that are saved one after the other, each in one transaction.

    The order within a `group` is kept (None: no group). A delivery may therefore be in a later part than its
    stage, or join the SECOND part.
    """
    if kinds.count(SaveStage.FIRST) == len(kinds):
        # The usual case: one part.
        return [list(range(len(kinds)))] if kinds else []
    # The first two parts are FIRST and SECOND. Then each ALONE delivery begins a part.
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
