"""The verdict on a delivery: an event of a known tenant, valid by its schema, or a rejection."""
