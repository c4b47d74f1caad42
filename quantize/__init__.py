"""Fewer bits: of a model's weights, and of stored vectors."""
