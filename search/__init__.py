"""Search with two encoders: bundles, indexes, a server."""
