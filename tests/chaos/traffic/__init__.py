"""What sends during a chaos run, and the proxies in between."""
