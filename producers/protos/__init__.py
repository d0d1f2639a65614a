"""The gRPC interface, and the code that `make proto` generates from it."""
