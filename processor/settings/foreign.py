"""Recognise settings of the systems that this one replaces, and unknown keys of `.env`.

A foreign name is reported only if our setting is not set, because the other program may still run beside us.
"""

import difflib
import os
import re
from collections.abc import Collection
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

_DATABASE = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE in one URL"
_QUEUE = "the queue's whole URL, such as https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE"
_RABBITMQ = "amqp://USER:PASSWORD@HOST:PORT/VHOST?queue=NAME in one URL"
_KAFKA = "kafka://HOST:PORT,HOST:PORT/TOPIC?group=NAME in one URL"
_ENDPOINT = "only where SQS is not AWS's, such as http://127.0.0.1:4566"
_SINK = "where `processor dispatch` posts the lines"

FOREIGN: dict[str, tuple[str, str]] = {
    name: (ours, hint)
    for ours, hint, names in (
        ("USAGE_SINK_URL", _SINK, "API_URL_SENDER SENDER_URL"),
        ("AWS_ENDPOINT_URL", _ENDPOINT, "AWS_ENDPOINT SQS_ENDPOINT SQS_ENDPOINT_URL AWS_SQS_ENDPOINT"),
        ("AWS_ENDPOINT_URL", _ENDPOINT, "AWS_SQS_ENDPOINT_URL LOCALSTACK_ENDPOINT LOCALSTACK_URL"),
        ("AWS_ENDPOINT_URL", _ENDPOINT, "PUBLISH_AWS_SQS_ENDPOINT"),
        ("AWS_REGION", "or leave it to SQS_QUEUE_URL", "AWS_SQS_REGION SQS_REGION PUBLISH_AWS_SQS_REGION"),
        ("SQS_QUEUE_URL", _QUEUE, "QUEUE_NAME QUEUE_URL SQS_URL SQS_QUEUE SQS_QUEUE_NAME AWS_QUEUE_URL"),
        ("SQS_QUEUE_URL", _QUEUE, "AWS_SQS_QUEUE_URL AWS_SQS_QUEUE_NAME AWS_SQS_QUEUE PUBLISH_AWS_SQS_QUEUE"),
        ("DATABASE_URL", _DATABASE, "DB_CONNECTION DB_URL DB_DSN DATABASE_DSN DATABASE_URI PG_URL PG_DSN"),
        ("DATABASE_URL", _DATABASE, "POSTGRES_URL POSTGRES_DSN POSTGRES_URI POSTGRESQL_URL"),
        ("DATABASE_URL", _DATABASE, "DB_HOST DB_PORT DB_USER DB_USERNAME DB_PASSWORD DB_NAME DB_DATABASE"),
        ("DATABASE_URL", _DATABASE, "INGESTOR_HOST INGESTOR_USER INGESTOR_PASSWORD INGESTOR_DB_NAME"),
        (
            "DATABASE_URL",
            _DATABASE,
            "POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB",
        ),
        ("SOURCE_URL", _RABBITMQ, "RABBITMQ_URL RABBITMQ_URI RABBIT_URL AMQP_URL CLOUDAMQP_URL BROKER_URL"),
        (
            "SOURCE_URL",
            _RABBITMQ,
            "RABBITMQ_HOST RABBITMQ_PORT RABBITMQ_USER RABBITMQ_PASSWORD RABBITMQ_QUEUE",
        ),
        ("SOURCE_URL", _RABBITMQ, "PULSE_QUEUE_URL PULSE_QUEUE_NAME RABBITMQ_SERVER_URL RABBITMQ_EXCHANGE"),
        ("SOURCE_URL", _RABBITMQ, "RABBITMQ_VHOST PUBLISH_RABBITMQ_SERVER_URL PUBLISH_RABBITMQ_QUEUE"),
        ("SOURCE_URL", _KAFKA, "KAFKA_BROKERS KAFKA_BROKER KAFKA_BOOTSTRAP_SERVERS KAFKA_URL KAFKA_TOPIC"),
        ("SOURCE_URL", _KAFKA, "KAFKA_GROUP_ID KAFKA_CONSUMER_GROUP LAGO_KAFKA_BOOTSTRAP_SERVERS"),
        ("SOURCE_URL", _KAFKA, "LAGO_KAFKA_RAW_EVENTS_TOPIC"),
    )
    for name in names.split()
}
"""The foreign name -> (our setting, a description of its value)."""

_OF_OTHERS = re.compile(
    r"(AWS|COMPOSE|DOCKER|LOCALSTACK|POSTGRES|RABBITMQ|KAFKA|DB|OTEL|UV|PIP|LC|GITHUB|CI|LAGO|OPENMETER)_.*"
    r"|(PG|PYTHON).*|(NO|HTTP|HTTPS)_PROXY|NO_COLOR"
    r"|TZ|LANG|PATH|HOME|USER|SHELL|TERM|COLUMNS|DEBUG|CI|ENV|PORT|HOST"
)
"""Names of other tools that may share the file."""

_SHOWN_MAX = 5
_ALIKE, _MISSPELT = 0.8, 0.9


def said_elsewhere(*ours: str) -> str:
    """Return the end of a message about unset settings: the foreign settings that are set instead."""
    there = names_in_use()
    found: dict[str, list[str]] = {}
    for name in sorted(FOREIGN.keys() & there):
        if FOREIGN[name][0] in ours and FOREIGN[name][0] not in there:
            found.setdefault(FOREIGN[name][0], []).append(name)
    return "".join(
        f"; {' and '.join(names)} {_is(names)} set, which is {our} here: {FOREIGN[names[0]][1]}"
        for our, names in found.items()
    )


def names_in_use() -> set[str]:
    """Return the names of variables with a value, in the environment or in `.env`."""
    return {name for name, value in os.environ.items() if value} | env_file_names()


def env_file_names(path: Path | str = ".env") -> set[str]:
    """Return the keys of a `.env` that have a value; none if there is no readable file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name.upper() for name, value in values.items() if value}


def unknown_keys(names: Collection[str], known: Collection[str]) -> str | None:
    """Return a line about unknown keys of a `.env` and what they may mean; None if all are known."""
    strange = sorted(name for name in names if name not in known and _is_ours(name, names, known))
    if not strange:
        return None
    shown = ", ".join(name + _meant(name, known) for name in strange[:_SHOWN_MAX])
    more = f" and {len(strange) - _SHOWN_MAX} more" if len(strange) > _SHOWN_MAX else ""
    what = "no setting" if len(strange) == 1 else "no settings"
    return f"note: .env: {shown}{more} {_is(strange)} {what}, and not read; see processor settings --template"


def _is_ours(name: str, names: Collection[str], known: Collection[str]) -> bool:
    """Return whether the name is probably meant for this program."""
    if name in FOREIGN:
        ours = FOREIGN[name][0]
        return ours not in names and not os.environ.get(ours)
    misspelt = difflib.get_close_matches(name, known, 1, _MISSPELT)
    return bool(misspelt) or not _OF_OTHERS.fullmatch(name)


def _meant(name: str, known: Collection[str]) -> str:
    if name in FOREIGN:
        return f" (here: {FOREIGN[name][0]})"
    alike = difflib.get_close_matches(name, known, 1, _ALIKE)
    return f" ({alike[0]}?)" if alike else ""


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
