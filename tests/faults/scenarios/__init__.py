"""All scenarios, in the order of the table."""

from tests.faults.scenarios import postgres, process

ALL = [*process.SCENARIOS, *postgres.SCENARIOS]
