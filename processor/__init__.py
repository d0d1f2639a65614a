"""Everything between the queue and the table: receive, validate, save, settle."""
