"""What growth costs: the same questions asked of a table of nothing, a million and ten million messages."""
