"""The formats on the queue: read strictly, and turned into one envelope."""
