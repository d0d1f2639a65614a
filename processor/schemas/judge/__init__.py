"""Validate payloads: cheap ones in the worker, expensive ones in a process with limits."""
