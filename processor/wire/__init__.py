"""The formats on the queue: bodies and attributes read strictly, and made into envelopes."""
