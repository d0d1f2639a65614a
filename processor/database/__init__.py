"""PostgreSQL: connections, named queries, migrations and error codes."""
