"""What every process needs: start, supervision, logs, metrics, probes and retries."""
