"""JSON pointers (RFC 6901), read as the SQL function json_path_of() and the operator #> read them."""

import re
from collections.abc import Sequence
from typing import Any

PLACE = re.compile(r"0|[1-9][0-9]{0,8}")
"""How a pointer spells a place in a list; none is longer than such a number."""


def steps(pointer: str) -> tuple[str, ...]:
    """Give the steps of a pointer; '' has none, and leads to the whole."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def pointer(path: Sequence[str | int]) -> str:
    """Write a path into a JSON value; the empty path, the whole value, is ''."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def follow(value: Any, path: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Give what the steps lead to; None where they lead nowhere, as where they lead to null."""
    for step in path:
        if type(value) is dict:
            value = value.get(step)
        elif type(value) is list and PLACE.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
