"""Decide for each delivery whether it is a message or a rejection."""
