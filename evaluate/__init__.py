"""Scores on retrieval and similarity."""
