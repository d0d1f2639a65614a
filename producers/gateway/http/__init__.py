"""The gateway's HTTP server.

connection ─▶ protocol (time, size, bad HTTP) ─▶ app (routes, problems) ─▶ reading ─▶ Intake ─▶ answers
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The configured limits of one request and of all requests together.

    `rate` is the rate limit of a tenant in events per second; `taken_status` the status for accepted pulses.
    """

    body_bytes_max: int = 4 * 1024 * 1024
    items_max: int = 1000
    requests_max: int = 4000
    connections_max: int = 16_000
    read_timeout_s: float = 10.0
    json_depth_max: int = 64
    json_values_max: int = 100_000
    rate: float | None = None
    taken_status: int = 202
