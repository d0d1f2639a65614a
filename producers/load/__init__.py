"""A load test: thousands of tenants that send pulses over HTTP, and their latencies."""
