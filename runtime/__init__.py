"""Serving: texts to vectors from what was exported, without torch."""
