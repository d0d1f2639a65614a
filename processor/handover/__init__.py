"""Close usage windows into lines, and hand each line over to a sink once."""
