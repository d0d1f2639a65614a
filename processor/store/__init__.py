"""Save one batch of verdicts in one transaction, and return settlements after the commit."""
