"""Commands about usage: meter, usage, count and dispatch."""
