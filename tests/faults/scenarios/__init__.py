"""All scenarios, in the order of the table."""

from tests.faults.scenarios import process

ALL = [*process.SCENARIOS]
