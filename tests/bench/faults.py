"""What can go wrong with a load test, each a single clear line with an exit code of its own."""

from processor.errors import ProcessorError


class LoadError(ProcessorError):
    """A load test can't be done here; the text says what to do."""


class AuditFailed(LoadError):
    """A run lost, doubled or left something, so it has no figure."""
