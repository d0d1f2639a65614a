"""The results of a benchmark: rounds, percentiles, tables and plots."""
