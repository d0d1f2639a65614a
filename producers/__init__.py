"""Everything that puts messages on a queue: publish, fake, send."""
