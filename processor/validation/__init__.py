"""The verdict on a delivery: an event of a known tenant that its schema accepts, or a rejection with its reason."""
