"""What a benchmark measured: rounds, percentiles, tables and plots."""
