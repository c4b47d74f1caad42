"""Fewer bytes: 8-bit weights chosen by measurement, and int8 or binary vectors."""
