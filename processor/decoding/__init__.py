"""From a delivery to an envelope, by the rules of its queue: compression, wrappers, mappings."""
