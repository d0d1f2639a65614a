"""From the queue to the tables: receive, validate, save, settle."""
