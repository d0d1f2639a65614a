"""All scenarios, in the order of the table."""

from tests.faults.scenarios import fifo, process, sqs

ALL = [*process.SCENARIOS, *sqs.SCENARIOS, *fifo.SCENARIOS]
