"""Parallel text for the tests: English sentences of a pattern, and a language whose words are theirs, backwards."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tiny import SENTENCES


def pairs(count: int = 80) -> list[tuple[str, str]]:
    """Different texts and their translations."""
    rng, words = random.Random(1), " ".join(SENTENCES).split()
    texts = dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(4, 10))) for _ in range(2 * count))
    return [(text, backwards(text)) for text in list(texts)[:count]]


def backwards(text: str) -> str:
    """The translation of a text."""
    return " ".join(word[::-1] for word in text.split()) + " ."


def tsv(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    """A file of two columns."""
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path
