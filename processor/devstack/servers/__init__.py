"""The servers of the development stack: PostgreSQL, SQS and a sink."""
