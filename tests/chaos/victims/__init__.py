"""Variants of our programs that die, hang or exhaust a resource on purpose."""
