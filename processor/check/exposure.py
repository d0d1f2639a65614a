"""The exposure check: well-known passwords and keys, and connections to other hosts without verified TLS.

Connections to this machine (loopback, a Unix socket) are not checked: `processor dev` uses them.
"""

import os
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from processor.brokers.aws_hosts import AWS_DOMAINS
from processor.check import Finding, judge, tell
from processor.errors import SettingsError
from processor.settings import ConnectionSettings, DatabaseSettings, SourceSettings, SqsSettings
from processor.settings.foreign import said_elsewhere
from processor.settings.loading import names

WELL_KNOWN = frozenset(
    """
    postgres postgresql password passwd pass processor event-processor events event changeme change-me
    change_me admin administrator root owner user guest secret default example test testing dev demo local
    letmein welcome qwerty 123 1234 12345 123456 1234567 12345678 123456789 1234567890 ...
    """.split()  # noqa: SIM905 - more readable than forty quoted words
)
"""Passwords that attackers try first, the logins of our own templates among them."""

_WELL_KNOWN_KEYS = frozenset(
    ("test", "testing", "dummy", "fake", "foo", "local", "localstack", "accesskey", "akiaiosfodnn7example")
)

_REFUSED = "`processor run` refuses it"


def check_exposure(settings: ConnectionSettings) -> list[Finding]:
    """Find unprotected connections to other hosts, and settings under another system's names."""
    findings = []
    if foreign := said_elsewhere(*names()):
        advice = f"{foreign.removeprefix('; ')}. Rename the variables that are meant for event-processor"
        findings.append(tell("settings", "some have another system's names", note=True, advice=advice))
    if settings.database_url is not None:
        if trouble := password_trouble(settings):
            findings.append(judge("password", trouble, fine=False, advice=_REFUSED))
        if mode := unverified(settings):
            advice = (
                "set sslmode=verify-full and sslrootcert in DATABASE_URL (docs/howto/roles-and-tls.md); "
                "without them the identity of the server is not verified"
            )
            findings.append(tell("TLS", f"sslmode={mode}", note=True, advice=advice))
    if trouble := source_trouble(settings):
        findings.append(judge("broker password", trouble, fine=False, advice=_REFUSED))
    if source_in_the_open(settings):
        advice = (
            "use amqps:// or kafkas://: without TLS, events and passwords can be read and changed in transit"
        )
        findings.append(
            tell("broker TLS", "SOURCE_URL names another host without TLS", note=True, advice=advice)
        )
    if trouble := key_trouble(settings):
        findings.append(judge("AWS key", trouble, fine=False, advice=_REFUSED))
    return findings


def require_unguessable(settings: ConnectionSettings) -> None:
    """Raise SettingsError if a well-known password or key would be sent to another host."""
    for trouble in (password_trouble(settings), source_trouble(settings), key_trouble(settings)):
        if trouble:
            raise SettingsError(trouble)


def password_trouble(settings: DatabaseSettings) -> str | None:
    """Describe a well-known database password and the fix; None: not well known, or the host is local.

    A missing password is fine: a certificate, a password file or the server's rules may replace it.
    """
    given = _parameters(settings)
    password = given.get("password", "").lower()
    if not _leaves(given) or password not in WELL_KNOWN | {given.get("user", "").lower()} - {""}:
        return None
    return (
        "DATABASE_URL names another host with a well-known password; change it (ALTER ROLE ... PASSWORD) and "
        "put the new one into DATABASE_URL or PGPASSWORD"
    )


def key_trouble(settings: SqsSettings) -> str | None:
    """Describe a placeholder AWS key that would be sent to AWS; None: no placeholder, or not AWS."""
    endpoint_url = settings.aws_client_options().get("endpoint_url")
    host = urlsplit(str(endpoint_url)).hostname or ""
    to_aws = endpoint_url is None or host.endswith(AWS_DOMAINS)
    if not to_aws or (settings.aws_access_key_id or "").lower() not in _WELL_KNOWN_KEYS:
        return None
    return (
        "AWS_ACCESS_KEY_ID is a placeholder for local servers, and would be sent to AWS; use a role or a key "
        "of your own, or set AWS_ENDPOINT_URL to the local server"
    )


def source_trouble(settings: SourceSettings) -> str | None:
    """Describe a well-known password in SOURCE_URL and the fix; None: not well known, or a local host.

    A URL without a user means RabbitMQ's guest, whose password is well known.
    """
    address = settings.source_address()
    if address is None or all(_is_here(host) for host, _ in address.hosts):
        return None
    password = "" if address.password is None else address.password.get_secret_value().lower()
    nobody = address.kind == "rabbitmq" and address.user is None
    if not nobody and password not in WELL_KNOWN | {(address.user or "").lower()} - {""}:
        return None
    return (
        "SOURCE_URL names another host with a well-known password (guest if there is none in the URL); "
        "change the password of the broker's user and put the new one into SOURCE_URL"
    )


def source_in_the_open(settings: SourceSettings) -> bool:
    """Tell whether SOURCE_URL names another host without TLS."""
    address = settings.source_address()
    return address is not None and not address.tls and not all(_is_here(host) for host, _ in address.hosts)


def unverified(settings: DatabaseSettings) -> str | None:
    """Return the sslmode if another host's identity is not verified; None: verified, or local."""
    given = _parameters(settings)
    mode = given.get("sslmode", "prefer")
    return mode if _leaves(given) and mode != "verify-full" else None


def _parameters(settings: DatabaseSettings) -> Mapping[str, str]:
    try:
        given = conninfo_to_dict(settings.need_database_url())
    except psycopg.ProgrammingError:
        # The connection attempt reports the malformed URL.
        return {}
    found = {
        name: value
        for name in ("host", "hostaddr", "user", "password", "sslmode")
        if (value := os.environ.get(f"PG{name.upper()}"))
    }
    return found | {name: str(value) for name, value in given.items() if value}


def _leaves(given: Mapping[str, str]) -> bool:
    hosts = given.get("hostaddr") or given.get("host") or ""
    return any(not _is_here(host.strip()) for host in hosts.split(","))


def _is_here(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
