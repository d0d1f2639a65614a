"""Fixtures by concern: each file named here says what it gives. Below, how hard random tests try."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.database",
    "tests.fixtures.readers",
    "tests.fixtures.check",
    "tests.fixtures.audit",
    "tests.fixtures.tenants",
    "tests.rig",
    "tests.fixtures.dead_letters",
    "tests.fixtures.usage",
    "tests.fixtures.restores",
    "tests.broker_servers.rabbitmq",
    "tests.broker_servers.kafka",
]

# A run of all tests tries the same each time, so that it fails for a change and never by chance. What chance
# finds is looked for by hand: pytest tests/properties --hypothesis-profile=long --timeout=3600
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long",
    max_examples=3000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# The examples of `make test`; with EVERYTHING=1 it takes those of "steady".
settings.register_profile("brief", settings.get_profile("steady"), max_examples=30)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command configures the log of its process, and so of all tests: the next finds it as it was."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def cores_as_they_were() -> Iterator[None]:
    """A run in the process of the tests may keep to one core, and all tests after it."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if cores is not None:
        os.sched_setaffinity(0, cores)
