"""The gateway's HTTP server.

connection ─▶ protocol (time, size, bad HTTP) ─▶ app (routes, problems) ─▶ reading ─▶ Intake ─▶ answers
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one request, and all of them together, may take, and how they are answered, by the settings.

    `rate` is the tenants' in events a second; `taken_status` what a pulse is answered that was taken.
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
