"""A model's vocabulary: tokens taken out, tokens put in, and the training that makes the new ones useful."""
