"""The token vocabulary of a model: profiled, trimmed, extended, its new rows made and trained."""
