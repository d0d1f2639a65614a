"""Payloads judged by schemas: cheap ones at once, dear ones in a process with a CPU limit."""
