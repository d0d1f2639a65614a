"""Parses and follows JSON pointers (RFC 6901), like the SQL function json_path_of() and the operator #>."""

import re
from collections.abc import Sequence
from typing import Any

PLACE = re.compile(r"0|[1-9][0-9]{0,8}")
"""An array index in a pointer; no array is longer than such a number."""


def steps(pointer: str) -> tuple[str, ...]:
    """Return the steps of a pointer; '' has none, and means the whole value."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def pointer(path: Sequence[str | int]) -> str:
    """Format a path as a pointer; the empty path is ''."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def follow(value: Any, path: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value at a path; None: no such value, or null."""
    for step in path:
        if type(value) is dict:
            value = value.get(step)
        elif type(value) is list and PLACE.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
