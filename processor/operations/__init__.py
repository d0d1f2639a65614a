"""What operators do: registry, reading, replay, retention, audit and dead letters."""
