"""PostgreSQL and SQS on 127.0.0.1 without Docker, and the two commands that show the whole at work."""
