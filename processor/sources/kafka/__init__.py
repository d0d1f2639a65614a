"""Events from a Kafka topic."""
