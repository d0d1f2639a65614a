"""Gateways for producers that don't speak SQS: HTTP and gRPC in front, the same queue behind.

request ─▶ http │ grpc ─▶ Item… ─▶ Intake: read, quota, gather in tens ─▶ SQS ─▶ Taken │ Refusal
"""
