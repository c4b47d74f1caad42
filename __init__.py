"""emb: distil, cut, quantise and prove text-embedding models."""
