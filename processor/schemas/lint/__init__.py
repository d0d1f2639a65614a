"""What is suspicious in a schema, found before the schema is published."""
