"""What is suspicious in a schema, found before it is published."""
