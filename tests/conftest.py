"""Fixtures by concern: each `fix_*.py` beside this file says what it gives."""

pytest_plugins = ["fix_servers"]
