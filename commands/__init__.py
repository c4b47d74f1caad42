"""The commands of `emb`, a file for each that has many options."""
