"""Closed windows become lines, and lines are handed over to a sink exactly once."""
