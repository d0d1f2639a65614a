"""The senders of a chaos run, and the proxies in between."""
