"""The line at the end of a command that says what to type next."""

from __future__ import annotations

import shlex

QUESTION = "how do I open a file?"


def typed(*words: object) -> str:
    """`emb …` as a shell takes it; a word in capitals is for the user to fill in."""
    return shlex.join(["emb", *map(str, words)])


def next_step(*words: object) -> str:
    """The line that says what to type next."""
    return f"next: {typed(*words)}"
