"""Compare two versions of a schema: what changes, and for whom."""
