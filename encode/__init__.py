"""Whole files of texts: streamed in, streamed out, kept where a run stops."""
