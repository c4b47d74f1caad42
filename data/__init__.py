"""Texts in: corpora, evaluation sets, and texts that try a model."""
