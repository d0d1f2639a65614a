"""Events from a RabbitMQ queue."""
