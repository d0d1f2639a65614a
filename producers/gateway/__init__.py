"""Servers that accept events over HTTP and gRPC and put them on SQS.

request ─▶ http │ grpc ─▶ Item… ─▶ Intake: read, quota, batches of ten ─▶ SQS ─▶ Taken │ Refusal
"""
