"""What the gRPC gateway speaks: ingest.proto, and the code that `make proto` makes of it."""
