"""`runcast doctor`: what of Redis, and of the way from an edge to its viewers, is not as it should be."""
