"""What the gRPC door speaks: ingest.proto, and the code that `make proto` makes of it."""
