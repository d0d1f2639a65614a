"""Two versions of a schema compared: what changes, and for whom."""
