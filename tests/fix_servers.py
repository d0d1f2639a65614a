"""Real servers for tests: one PostgreSQL and one SQS per session, a fresh queue per test."""

import itertools
import os
from collections.abc import Iterator

import pytest

from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sqs import EmbeddedSqs

QUEUE_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a superuser on a PostgreSQL server: DATABASE_URL_TEST if set, else one of our own.

    Ours gives up fsync for speed, and passwords, for logins of tests; it is thrown away at the end.
    """
    given = os.environ.get("DATABASE_URL_TEST")
    if given:
        yield given
        return
    directory = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(directory, fsync=False, max_connections=200, passwords=False) as server:
        yield server.url()


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[EmbeddedSqs]:
    """An SQS whose queues are gone at the end of the session."""
    with EmbeddedSqs(None) as server:
        yield server


@pytest.fixture
def queue_url(sqs_server: EmbeddedSqs, request: pytest.FixtureRequest) -> str:
    """The URL of an empty queue of this test's own, with a dead-letter queue `<name>-dlq` beside it."""
    marker = request.node.get_closest_marker("visibility")
    seconds = marker.args[0] if marker else 60
    return sqs_server.create_queue(f"events-{next(QUEUE_NUMBERS)}", visibility_timeout_s=seconds)
