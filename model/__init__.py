"""A sentence-transformers folder in torch: read, held against sentence-transformers' own output, cut and saved."""
