"""Payloads checked against schemas: cheap ones at once, expensive ones in a process with a CPU limit."""
