"""`processor demo` and `processor dev`: PostgreSQL, SQS and the processor on 127.0.0.1, without Docker."""
