"""Find what is suspicious in a schema before it is published."""
