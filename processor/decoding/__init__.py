"""From a delivery to an envelope, by what its queue carries: mappings, wrappers and compression."""
