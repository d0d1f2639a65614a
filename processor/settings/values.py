"""Define the types of settings: lists of tenants, JSON, URLs. Errors never quote a secret."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import NoDecode

from processor.brokers.source_url import source_address
from processor.wire.envelope import Producer
from processor.wire.formats import Identifier
from processor.wire.sender_rights import UNNAMED

RATE_MAX = 1_000_000

UNWRAPS = ("sns", "eventbridge", "s3", "sns,eventbridge", "sns,s3", "none")
"""The envelopes of AWS services that may wrap each event of a queue, the outer one first."""

_VISIBLE = re.compile(r"[!-~]+")
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_PRODUCER: TypeAdapter[str] = TypeAdapter(Producer)


def tenant_ids(names: object) -> frozenset[str]:
    """Check a list of tenant ids. An empty list would refuse every tenant and is an error."""
    if not isinstance(names, list) or not names:
        raise ValueError("expected a list of tenants that is not empty")
    for name in names:
        identifier(name, "tenant id")
        if name == "*":
            raise ValueError('in a list "*" is a tenant of that name; expected "*" without the list, for any')
    return frozenset(names)


def identifier(name: object, kind: str) -> None:
    """Raise ValueError, with a message, if the name is not valid for this kind."""
    try:
        _IDENTIFIER.validate_python(name)
    except ValidationError:
        raise ValueError(
            f"{str(name)[:64]!r} is no {kind}; expected 1 to 256 characters and no control characters"
        ) from None


def tenants_of(text: str) -> frozenset[str]:
    """Parse a list of tenants, with commas or as JSON. Raises ValueError with a message."""
    if text.lstrip().startswith("["):
        return tenant_ids(json_value(text))
    return tenant_ids([name.strip() for name in text.split(",")])


def producers_of(text: str) -> tuple[str, ...]:
    """Parse a list of producers, with commas or as JSON. Raises ValueError with a message."""
    names = json_value(text) if text.lstrip().startswith("[") else text.split(",") if text.strip() else []
    return tuple(producer(str(name).strip()) for name in names)


def producer(name: str) -> str:
    """Check a producer's name, or a prefix followed by `*`. Raises ValueError with a message."""
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
    """Parse JSON without repeated names in an object. Raises ValueError with a message."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeated)
    except (json.JSONDecodeError, RecursionError):
        # Not quoted, since the text may be a secret.
        raise ValueError("not JSON; see `processor settings --template` for what it looks like") from None


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice; expected each once")
    return found


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Validate a value, secret or not, by a check that raises ValueError."""

    def checked(value: str | SecretStr) -> str | SecretStr:
        check(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    return AfterValidator(checked)


def _read(read: Callable[[str], object]) -> BeforeValidator:
    """Parse the text of a variable. Values set by code are left as they are."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _postgresql_url(url: str) -> None:
    if _url_parts(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE")


def _queue_url(url: str) -> None:
    parts = _url_parts(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise ValueError("expected a queue URL such as https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")


def _sink_url(url: str) -> None:
    parts = _url_parts(url)
    if parts.scheme in ("kafka", "kafkas"):
        source_address(url)
        return
    if parts.scheme not in ("http", "https") or not parts.hostname or not _port_fits(parts):
        raise ValueError("expected http://HOST[:PORT]/PATH, https:// or kafka://HOST:PORT/TOPIC")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "expected no user and no password in it; what the sink asks for goes to USAGE_SINK_TOKEN"
        )
    if not _VISIBLE.fullmatch(url):
        raise ValueError("expected ASCII without spaces; write other characters as %XX")


def _token(text: str) -> None:
    if not _VISIBLE.fullmatch(text):
        raise ValueError("expected ASCII without spaces and line ends, as it goes into a header")


def _unwrap(name: str) -> None:
    if name not in UNWRAPS:
        raise ValueError(f"{name[:32]!r} is no envelope that we know; expected one of: {' '.join(UNWRAPS)}")


def _entries(text: str, example: str) -> dict[str, Any]:
    entries = json_value(text)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"expected a JSON object with an entry at least, such as {example}")
    return entries


def _tenants_by_sender(text: str) -> dict[str, frozenset[str] | None]:
    found: dict[str, frozenset[str] | None] = {}
    for sender, tenants in _entries(text, '{"AROA...": ["acme"], "*": "*"}').items():
        try:
            found[sender] = None if tenants == "*" else tenant_ids(tenants)
        except ValueError as error:
            raise ValueError(f"the entry {sender[:64]!r}: {error}") from None
    return found


def _rates_by_tenant(text: str) -> dict[str, float]:
    rates = _entries(text, '{"acme": 500}')
    for tenant, rate in rates.items():
        tenant_ids([tenant])
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= RATE_MAX:
            raise ValueError(
                f"the entry {tenant[:64]!r}: expected events per second, above 0 up to {RATE_MAX}"
            )
    return rates


def _port_fits(parts: SplitResult) -> bool:
    """Return whether the port of a URL is valid or absent."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _url_parts(url: str) -> SplitResult:
    """Split a URL; if it can't be split, all parts are empty."""
    try:
        return urlsplit(url)
    except ValueError:
        # The text of the error quotes a part of the URL, which may be the password.
        return urlsplit("")


PostgresUrl = Annotated[SecretStr, _checked(_postgresql_url)]
QueueUrl = Annotated[str, _checked(_queue_url)]
SourceUrl = Annotated[SecretStr, _checked(source_address)]
SinkUrl = Annotated[SecretStr, _checked(_sink_url)]
Token = Annotated[SecretStr, _checked(_token)]
Unwrap = Annotated[str, _checked(_unwrap)]
Producers = Annotated[str, _checked(producers_of)]
Tenants = Annotated[frozenset[str] | None, NoDecode, _read(tenants_of)]
SenderTenants = Annotated[Mapping[str, frozenset[str] | None] | None, NoDecode, _read(_tenants_by_sender)]
Rates = Annotated[Mapping[str, float] | None, NoDecode, _read(_rates_by_tenant)]
