"""Search: what encoders are served with, and what their vectors are found in."""
