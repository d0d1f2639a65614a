"""One batch, one transaction: verdicts in, settlements out, and between the two a COMMIT."""
