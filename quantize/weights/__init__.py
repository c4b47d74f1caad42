"""A model's weights in 16, 8 and 4 bits, and the choice among the ways."""
