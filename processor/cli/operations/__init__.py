"""Commands for operators: trace, dlq, audit, rejection and retention."""
