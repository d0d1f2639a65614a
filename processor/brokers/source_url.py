"""Parse SOURCE_URL: broker, hosts, and queue or topic.

    amqp://USER:PASSWORD@HOST:PORT/VHOST?queue=NAME            amqps:// for TLS
    kafka://HOST:PORT,HOST:PORT/TOPIC?group=NAME               kafkas:// for TLS, USER:PASSWORD@ for SASL

Errors never quote the URL, which may contain a password.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

Kind = Literal["rabbitmq", "kafka"]

KAFKA_GROUP = "event-processor"
"""The default consumer group."""

_KINDS: dict[str, tuple[Kind, bool]] = {
    "amqp": ("rabbitmq", False),
    "amqps": ("rabbitmq", True),
    "kafka": ("kafka", False),
    "kafkas": ("kafka", True),
}
_PORTS = {"amqp": 5672, "amqps": 5671, "kafka": 9092, "kafkas": 9093}
_OPTIONS: dict[Kind, frozenset[str]] = {
    "rabbitmq": frozenset({"queue"}),
    "kafka": frozenset({"group", "sasl"}),
}
_SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

EXPECTED = (
    "expected amqp://USER:PASSWORD@HOST:PORT/VHOST?queue=NAME or kafka://HOST:PORT/TOPIC?group=NAME "
    "(amqps, kafkas with TLS); leave it unset for SQS"
)


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """The address of a queue or topic; `queue` is its name, as in the tables.

    `vhost` is for RabbitMQ, `group` and `sasl` (the mechanism, if there is a user) for Kafka.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    queue: str
    tls: bool
    user: str | None = None
    password: SecretStr | None = None
    vhost: str = "/"
    group: str = KAFKA_GROUP
    sasl: str = "PLAIN"


def source_address(url: str) -> SourceAddress:
    """Parse a SOURCE_URL. Raises ValueError, whose message contains no part of the URL."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(EXPECTED) from None
    if parts.scheme not in _KINDS or parts.fragment:
        raise ValueError(EXPECTED)
    kind, tls = _KINDS[parts.scheme]
    unknown = options.keys() - _OPTIONS[kind]
    if unknown:
        raise ValueError(
            f"an option behind ? that is not known; expected {', '.join(sorted(_OPTIONS[kind]))}"
        )
    user, password = _credentials(parts)
    hosts = tuple(_host(text, _PORTS[parts.scheme]) for text in parts.netloc.rpartition("@")[2].split(","))
    path = parts.path.removeprefix("/")
    if kind == "rabbitmq":
        if len(hosts) > 1:
            raise ValueError("several hosts; expected one (a load balancer's name may stand for several)")
        queue = options.get("queue", "")
        # By the AMQP URI specification, a URL without a path means the default vhost.
        return SourceAddress(kind, hosts, _named(queue), tls, user, password, vhost=unquote(path) or "/")
    sasl = options.get("sasl", "PLAIN").upper()
    if sasl not in _SASL:
        raise ValueError(f"sasl: expected one of {', '.join(_SASL)}")
    group = options.get("group", KAFKA_GROUP)
    return SourceAddress(
        kind, hosts, _named(unquote(path)), tls, user, password, group=_named(group), sasl=sasl
    )


def with_password_of(url: str, other: str) -> str:
    """Return `url` with the user and password of `other`, if both have the same broker and user."""
    address, known = source_address(url), source_address(other)
    same = (address.kind, address.hosts, address.tls) == (known.kind, known.hosts, known.tls)
    if not same or address.user not in (None, known.user) or address.password is not None:
        return url
    parts, credentials = urlsplit(url), urlsplit(other).netloc.rpartition("@")[0]
    hosts = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{credentials}@{hosts}" if credentials else hosts).geturl()


def _credentials(parts: SplitResult) -> tuple[str | None, SecretStr | None]:
    before, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None, None
    user, colon, password = before.partition(":")
    return unquote(user), SecretStr(unquote(password)) if colon else None


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(EXPECTED) from None
    if not parts.hostname or port == 0:
        raise ValueError(EXPECTED)
    return parts.hostname, port or default_port


def _named(name: str) -> str:
    if not 1 <= len(name) <= 255 or not name.isprintable() or "/" in name:  # noqa: PLR2004 - AMQP's and Kafka's
        raise ValueError(f"a queue, topic or group without a usable name; {EXPECTED}")
    return name
