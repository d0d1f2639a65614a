"""Events from an SQS queue."""
