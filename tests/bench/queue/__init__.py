"""The SQS-compatible server of the benchmark, and the programs that talk to it."""
