"""The Prometheus metrics of the gRPC gateway. No label takes values that a sender chooses."""

from prometheus_client import Counter, Gauge, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it without types

calls = Counter("gateway_grpc_calls", "Calls that ended, by method and status.", ["method", "status"])
in_flight = Gauge("gateway_grpc_calls_in_flight", "Calls that have no status yet, streams among them.")
