"""Servers that accept events over HTTP and gRPC and put them on SQS.

request ─▶ http │ grpc ─▶ Item… ─▶ Intake: read, quota, gather in tens ─▶ SQS ─▶ Taken │ Refusal
"""
