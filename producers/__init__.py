"""Everything that puts messages on a queue: publishers, gateways and test tools."""
