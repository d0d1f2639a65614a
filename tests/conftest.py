"""Fixtures by concern: each `fix_*.py` beside this file says what it gives."""

pytest_plugins = ["tests.fix_servers", "tests.fix_database", "tests.fix_check"]
