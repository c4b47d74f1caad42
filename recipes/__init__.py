"""Recipes and the registry of teachers, as YAML, and what reads them."""
