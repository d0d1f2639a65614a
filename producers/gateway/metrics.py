"""The Prometheus metrics of all gateways. No label takes values that a sender chooses."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# As in the processor's metrics: a `_created` series for each metric would add nothing.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it without types

items = Counter("gateway_items", "Items with a word on them: taken, or why not.", ["word"])
batch_size = Histogram(
    "gateway_batch_size", "Events in one call to the queue.", buckets=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
)
send_seconds = Histogram(
    "gateway_send_seconds",
    "Time of one call to the queue, failed ones included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
send_failures = Counter("gateway_send_failures", "Calls to the queue that failed as a whole.")
waiting = Gauge("gateway_waiting_items", "Events in the gateway that the queue has not answered for yet.")
