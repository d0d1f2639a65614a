"""How the values of settings are read: lists of tenants, JSON, URLs. Errors never quote a secret."""

import json
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import TypeAdapter, ValidationError

from processor.wire.envelope import Producer
from processor.wire.formats import Identifier
from processor.wire.sender_rights import UNNAMED

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_PRODUCER: TypeAdapter[str] = TypeAdapter(Producer)


def tenant_ids(names: object) -> frozenset[str]:
    """Read a list of tenant ids; an empty one would refuse everybody, which nobody means."""
    if not isinstance(names, list) or not names:
        raise ValueError("expected a list of tenants that is not empty")
    for name in names:
        identifier(name, "tenant id")
        if name == "*":
            raise ValueError('in a list "*" is a tenant of that name; expected "*" without the list, for any')
    return frozenset(names)


def identifier(name: object, kind: str) -> None:
    """Raise ValueError, in words, where it is no name of this kind."""
    try:
        _IDENTIFIER.validate_python(name)
    except ValidationError:
        raise ValueError(
            f"{str(name)[:64]!r} is no {kind}; expected 1 to 256 characters and no control characters"
        ) from None


def tenants_of(text: str) -> frozenset[str]:
    """Read a list of tenants, with commas or in JSON. Raises ValueError, in words."""
    if text.lstrip().startswith("["):
        return tenant_ids(json_value(text))
    return tenant_ids([name.strip() for name in text.split(",")])


def producers_of(text: str) -> tuple[str, ...]:
    """Read a list of producers, with commas or in JSON. Raises ValueError, in words."""
    names = json_value(text) if text.lstrip().startswith("[") else text.split(",") if text.strip() else []
    return tuple(producer(str(name).strip()) for name in names)


def producer(name: str) -> str:
    """Read a producer's name, or what all names of some begin with and a `*`. Raises ValueError, in words."""
    name = "" if name == UNNAMED else name
    if name != name.strip() or "*" in name[:-1]:
        raise ValueError(
            f"{name[:64]!r} is no producer; expected no white space around it, and a * at its end alone"
        )
    try:
        return _PRODUCER.validate_python(name)
    except ValidationError:
        raise ValueError(
            f"{name[:64]!r} is no producer; expected at most 256 characters and no control characters"
        ) from None


def json_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON, no name twice in an object."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeated)
    except (json.JSONDecodeError, RecursionError):
        # Not quoted: nobody knows what was pasted here.
        raise ValueError("not JSON; see `processor settings --template` for what it looks like") from None


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice; expected each once")
    return found


def port_fits(parts: SplitResult) -> bool:
    """Say whether the port of a URL is one, or not named."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def url_parts(url: str) -> SplitResult:
    """Split a URL; one that can't be split has no parts at all."""
    try:
        return urlsplit(url)
    except ValueError:
        # Its text quotes the piece that it stumbled over, which may be one of a password.
        return urlsplit("")
