"""The cost of growth: the same queries on tables of zero, a million and ten million messages."""
