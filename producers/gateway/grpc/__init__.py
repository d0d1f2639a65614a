"""The gateway's gRPC server."""
