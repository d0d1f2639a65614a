"""From the gateway to SQS: calls of ten, a fair share for each tenant, retries."""
