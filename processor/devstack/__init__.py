"""PostgreSQL and SQS on 127.0.0.1 without Docker, for `processor demo` and `processor dev`."""
