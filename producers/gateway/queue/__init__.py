"""Sends the gateway's events to SQS: batches of ten, a fair share for each tenant, retries."""
