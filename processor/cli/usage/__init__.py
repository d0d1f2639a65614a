"""Commands about usage: meter, usage, count, counter and dispatch."""
