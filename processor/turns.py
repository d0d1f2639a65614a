"""In which turn, and in whose company, deliveries are saved: a suspect alone, and a group in its order."""

from collections.abc import Callable, Sequence


def turns(alone: Sequence[bool], group: Callable[[int], str | None]) -> list[list[int]]:
    """Part positions into what is saved together; the parts are to be saved one after the other.

    Each position that is `alone` gets a part of its own, after all that need not wait for it. Only what comes
    later in the same `group` (None: in none) has to wait, so that a group keeps its order.
    """
    if True not in alone:
        return [list(range(len(alone)))] if alone else []
    first: list[int] = []
    later: list[list[int]] = []
    waiting: set[str] = set()
    for position, by_itself in enumerate(alone):
        name = group(position)
        if by_itself:
            later.append([position])
            if name is not None:
                waiting.add(name)
        elif name not in waiting:
            first.append(position)
        elif alone[later[-1][-1]]:
            later.append([position])
        else:
            later[-1].append(position)
    return [first, *later] if first else later
