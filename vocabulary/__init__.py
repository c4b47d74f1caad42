"""The token vocabulary of a model: which rows of its table stay, which come in, and how they are trained."""
