"""The errors of a load test, each with a one-line message and an exit code."""

from processor.errors import ProcessorError


class LoadError(ProcessorError):
    """A load test can't be done here; the text says what to do."""


class AuditFailed(LoadError):
    """A run lost, doubled or left something, so it has no figure."""
