"""Stored vectors as int8, int4, signs, learned bits and product codes."""
