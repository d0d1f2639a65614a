"""Events from a queue into PostgreSQL: received, validated, saved, and only then deleted from the queue."""
