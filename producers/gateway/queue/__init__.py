"""From the gateway to SQS: calls of ten, one queue a tenant, outages told from refusals."""
