"""From a folder to others: the model card, the hub, and which programs will load it."""
