"""The line at the end of a command that says what to type next."""

from __future__ import annotations

import shlex

QUESTION = "how do I open a file?"


def next_step(*words: object) -> str:
    """`next: emb …`, to be pasted as it is; a word in capitals is for the user to fill in."""
    return f"next: {shlex.join(['emb', *map(str, words)])}"
