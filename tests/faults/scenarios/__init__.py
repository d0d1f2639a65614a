"""All scenarios, in the order of the table."""

from tests.faults.scenarios import changes, process, servers, sessions

ALL = [*process.SCENARIOS, *sessions.SCENARIOS, *servers.SCENARIOS, *changes.SCENARIOS]
