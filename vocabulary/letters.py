"""Letters that texts have and a tokenizer has not: what a language needs first whose script is new to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from emb.vocabulary.tokenizer_json import TokenizerJson

_MIN_FREQUENCY = 5  # a rarer one would get a row that nothing trains


def unknown_letters(source: TokenizerJson, texts: Sequence[str]) -> list[str]:
    """The tokens of single letters without which words of `texts` are unknown, the most frequent first.

    Where every byte is a token there are none. A letter within a WordPiece word is another token than one that begins
    it.
    """
    if source.unknown is None:
        return []
    counts: Counter[str] = Counter()
    for word, often in _words(source, texts).items():
        for letter in _missing(source, word):
            counts[letter] += often
    frequent = [letter for letter, often in counts.items() if often >= _MIN_FREQUENCY]
    return sorted(frequent, key=lambda letter: (-counts[letter], letter))


def _words(source: TokenizerJson, texts: Sequence[str]) -> Counter[str]:
    """The words that are unknown, in whole or in part, as the tokenizer's model gets them."""
    tokenizer = source.tokenizer()
    found: Counter[str] = Counter()
    for text in texts:
        plain = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        split = tokenizer.pre_tokenizer.pre_tokenize_str(plain) if tokenizer.pre_tokenizer else [(plain, (0, 0))]
        found.update(word for word, _ in split)
    return Counter({word: often for word, often in found.items() if _is_unknown(source, tokenizer, word)})


def _is_unknown(source: TokenizerJson, tokenizer: Any, word: str) -> bool:
    return any(token.id == source.unknown for token in tokenizer.model.tokenize(word))


def _missing(source: TokenizerJson, word: str) -> Iterator[str]:
    for place, letter in enumerate(word):
        token = source.continuation + letter if place else letter
        if token not in source.pieces:
            yield token
