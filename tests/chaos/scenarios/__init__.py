"""All scenarios, in the order of the table."""

from tests.chaos.scenarios import (
    brokers,
    changes,
    fairness,
    fifo,
    gateway,
    hangs,
    idle,
    process,
    restores,
    rolling,
    senders,
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
    *restores.SCENARIOS,
    *gateway.SCENARIOS,
    *fairness.SCENARIOS,
    *brokers.SCENARIOS,
    *idle.SCENARIOS,
    *rolling.SCENARIOS,
    *senders.SCENARIOS,
]
