"""All scenarios, in the order of the table."""

from tests.faults.scenarios import (
    brokers,
    changes,
    fifo,
    gateway,
    hangs,
    process,
    servers,
    sessions,
    sqs,
    usage,
)

ALL = [
    *process.SCENARIOS,
    *hangs.SCENARIOS,
    *sessions.SCENARIOS,
    *servers.SCENARIOS,
    *changes.SCENARIOS,
    *sqs.SCENARIOS,
    *fifo.SCENARIOS,
    *usage.SCENARIOS,
    *gateway.SCENARIOS,
    *brokers.SCENARIOS,
]
