"""What a deployment must not leave open towards other machines: passwords everybody knows, names unproved.

On this machine itself (loopback, a Unix socket) anything goes: that is what `processor dev` does.
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
    """.split()  # noqa: SIM905 - forty words are read best so
)
"""Passwords that are tried first. What our own templates name as a login is among them."""

_WELL_KNOWN_KEYS = frozenset(
    ("test", "testing", "dummy", "fake", "foo", "local", "localstack", "accesskey", "akiaiosfodnn7example")
)

_REFUSED = "`processor run` refuses it"


def check_exposure(settings: ConnectionSettings) -> list[Finding]:
    """Find what goes to other machines unprotected, and settings under another system's name."""
    findings = []
    if foreign := said_elsewhere(*names()):
        advice = f"{foreign.removeprefix('; ')}. Rename what is meant for us"
        findings.append(tell("settings", "some under another system's name", note=True, advice=advice))
    if settings.database_url is not None:
        if trouble := password_trouble(settings):
            findings.append(judge("password", trouble, fine=False, advice=_REFUSED))
        if mode := unverified(settings):
            advice = (
                "set sslmode=verify-full and sslrootcert in DATABASE_URL (docs/howto/roles-and-tls.md), "
                "else whoever answers at that address is believed to be the database"
            )
            findings.append(tell("TLS", f"sslmode={mode}", note=True, advice=advice))
    if trouble := source_trouble(settings):
        findings.append(judge("broker password", trouble, fine=False, advice=_REFUSED))
    if source_in_the_open(settings):
        advice = (
            "use amqps:// or kafkas://: whoever is on the way reads and changes events, and the password if "
            "there is one"
        )
        findings.append(
            tell("broker TLS", "SOURCE_URL goes to another machine without it", note=True, advice=advice)
        )
    if trouble := key_trouble(settings):
        findings.append(judge("AWS key", trouble, fine=False, advice=_REFUSED))
    return findings


def require_unguessable(settings: ConnectionSettings) -> None:
    """Raise SettingsError where a password or key that everybody knows goes to another machine."""
    for trouble in (password_trouble(settings), source_trouble(settings), key_trouble(settings)):
        if trouble:
            raise SettingsError(trouble)


def password_trouble(settings: DatabaseSettings) -> str | None:
    """Say that the database's password is well known, and what to do; None: it is not, or stays here.

    No password at all is no trouble: a certificate, a password file or the server's rules may stand for it.
    """
    given = _parameters(settings)
    password = given.get("password", "").lower()
    if not _leaves(given) or password not in WELL_KNOWN | {given.get("user", "").lower()} - {""}:
        return None
    return (
        "DATABASE_URL goes to another machine with a password that everybody knows; give the login one of "
        "its own (ALTER ROLE ... PASSWORD) and put that in DATABASE_URL or PGPASSWORD"
    )


def key_trouble(settings: SqsSettings) -> str | None:
    """Say that the AWS key is a well-known stand-in and would go to AWS; None: no."""
    endpoint_url = settings.aws_client_options().get("endpoint_url")
    host = urlsplit(str(endpoint_url)).hostname or ""
    to_aws = endpoint_url is None or host.endswith(AWS_DOMAINS)
    if not to_aws or (settings.aws_access_key_id or "").lower() not in _WELL_KNOWN_KEYS:
        return None
    return (
        "AWS_ACCESS_KEY_ID is a stand-in that local servers take, and would go to AWS; use a role or a key "
        "of your own, or set AWS_ENDPOINT_URL to the local server"
    )


def source_trouble(settings: SourceSettings) -> str | None:
    """Say that the password in SOURCE_URL is well known, and what to do; None: it is not, or stays here.

    RabbitMQ's own guest, which a URL without a user stands for, is such a one.
    """
    address = settings.source_address()
    if address is None or all(_is_here(host) for host, _ in address.hosts):
        return None
    password = "" if address.password is None else address.password.get_secret_value().lower()
    nobody = address.kind == "rabbitmq" and address.user is None
    if not nobody and password not in WELL_KNOWN | {(address.user or "").lower()} - {""}:
        return None
    return (
        "SOURCE_URL goes to another machine with a password that everybody knows (guest where it names "
        "none); give the broker's user one of its own and put that in SOURCE_URL"
    )


def source_in_the_open(settings: SourceSettings) -> bool:
    """Say whether SOURCE_URL leads to another machine without TLS."""
    address = settings.source_address()
    return address is not None and not address.tls and not all(_is_here(host) for host, _ in address.hosts)


def unverified(settings: DatabaseSettings) -> str | None:
    """Give the sslmode by which another machine is believed without proof; None: it must prove its name."""
    given = _parameters(settings)
    mode = given.get("sslmode", "prefer")
    return mode if _leaves(given) and mode != "verify-full" else None


def _parameters(settings: DatabaseSettings) -> Mapping[str, str]:
    try:
        given = conninfo_to_dict(settings.need_database_url())
    except psycopg.ProgrammingError:
        # Whoever connects says so.
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
