"""The Prometheus metrics of the HTTP gateway. No label takes values that a sender chooses."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it without types

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

requests = Counter(
    "gateway_http_requests", "Requests answered, by route and HTTP status.", ["route", "status"]
)
request_seconds = Histogram(
    "gateway_http_request_seconds",
    "Time from the head of a request to its answer, the wait for SQS included.",
    ["route"],
    buckets=_SECONDS,
)
in_flight = Gauge("gateway_http_requests_in_flight", "Requests that have no answer yet.")
body_bytes = Counter("gateway_http_body_bytes", "Bytes of bodies that were read whole.")


@cache
def answered(route: str, status: int) -> Counter:
    """Return the counter of a route and a status. Cached: the lookup costs more than the increment."""
    return requests.labels(route=route, status=str(status))


@cache
def seconds(route: str) -> Histogram:
    """Return the histogram of a route."""
    return request_seconds.labels(route=route)
