"""Models to learn from: by name, on this machine, and their vectors, each computed once."""
