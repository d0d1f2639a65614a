"""Operator tasks: registry, reading, replay, retention, audit and dead letters."""
