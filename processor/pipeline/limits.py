"""The limits of a pipeline: threads, batches, buffers and waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Limits of number, bytes and time. The settings of the same names explain each."""

    receivers: int = 3
    settlers: int = 3
    receive_wait_s: float = 20
    batch_size_max: int = 500
    batch_bytes_max: int = 1024 * 1024
    linger_s: float = 0.0
    buffer_size_max: int = 2000
    buffer_bytes_max: int = 4 * 1024 * 1024
    visibility_timeout_s: float = 60
    hold_s_max: float = 39_600
    stop_timeout_s: float = 25
