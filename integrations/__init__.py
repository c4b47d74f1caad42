"""A bundle, or any model, as the embedder of a framework: one module for each, which needs that framework installed."""
