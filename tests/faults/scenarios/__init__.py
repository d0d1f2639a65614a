"""All scenarios, in the order of the table."""

from tests.faults.scenarios import process, sqs

ALL = [*process.SCENARIOS, *sqs.SCENARIOS]
