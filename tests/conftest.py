"""Fixtures by concern: each file named here says what it gives."""

pytest_plugins = [
    "tests.fix_servers",
    "tests.fix_database",
    "tests.fix_check",
    "tests.fix_audit",
    "tests.fix_tenants",
    "tests.rig",
    "tests.fix_dead_letters",
]
