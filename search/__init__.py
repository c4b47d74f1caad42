"""Search: documents and queries by two encoders, in an index, over HTTP."""
