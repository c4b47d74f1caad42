"""Which neighbouring pieces of texts are worth a token of their own: byte-pair encoding that goes on from the pieces a
tokenizer has (BPE for subwords: Sennrich et al. 2016, arXiv 1508.07909).

The learning is the `tokenizers` library's: every piece is written as one letter of Unicode's private planes, so that
texts become words of such letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, trainers

from emb.vocabulary.tokenizer_json import SPACE, TokenizerJson

_PRIVATE = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))  # letters that are only themselves
_MIN_FREQUENCY = 5  # of a pair: rarer ones would get a row that nothing trains


@dataclass(frozen=True)
class Compound:
    """A new token, made of two that are there before it: pieces of the tokenizer, or compounds."""

    token: str
    left: str
    right: str


@dataclass(frozen=True)
class Compounds:
    """New tokens in the order in which they were learned."""

    found: Sequence[Compound]

    @cached_property
    def by_token(self) -> dict[str, Compound]:
        """Each by what it is called."""
        return {each.token: each for each in self.found}

    def pieces(self, token: str) -> list[str]:
        """The old pieces that a token is made of, in order."""
        made = self.by_token.get(token)
        return [token] if made is None else [*self.pieces(made.left), *self.pieces(made.right)]

    def depth_first(self, token: str) -> Iterator[Compound]:
        """The compounds that a token is made of, the innermost first, itself last."""
        made = self.by_token.get(token)
        if made is not None:
            yield from self.depth_first(made.left)
            yield from self.depth_first(made.right)
            yield made


def learn(source: TokenizerJson, texts: Sequence[str], count: int) -> Compounds:
    """At most `count` compounds of pieces that stand together within words of `texts`, the most frequent pair first."""
    words = _words(source, texts)
    used = sorted({index for text in words for word in text for index in word})[: len(_PRIVATE)]
    letters = {index: chr(point) for index, point in zip(used, _PRIVATE, strict=False)}
    written = (" ".join("".join(letters.get(index, "") for index in word) for word in text) for text in words)
    names = {letter: source.tokens[index] for index, letter in letters.items()}
    taken, found = set(source.pieces) | set(source.added), []
    for left, right in _merges(written, len(letters) + 2 * count):
        # A pair that spells a token which is there already gives none; what is built on it is no compound of two.
        if left not in names or right not in names:
            continue
        token = names[left] + names[right].removeprefix(source.continuation)
        if token in taken:
            continue
        taken.add(token)
        names[left + right] = token
        found.append(Compound(token, names[left], names[right]))
    return Compounds(found[:count])


def words_of(source: TokenizerJson, encoding: Encoding) -> Iterator[list[int]]:
    """The ids of each word of a text; added tokens and what is unknown belong to none."""
    outside = {*source.added.values(), source.unknown}
    word: list[int] = []
    last = None
    for index, number in zip(encoding.ids, encoding.word_ids, strict=True):
        begins = number != last or source.tokens[index].startswith(SPACE)  # Gemma's words are whole texts
        if (begins or index in outside) and word:
            yield word
            word = []
        if index not in outside:
            word.append(index)
        last = number
    if word:
        yield word


def _words(source: TokenizerJson, texts: Sequence[str]) -> list[list[list[int]]]:
    tokenizer = source.tokenizer()
    found = []
    for start in range(0, len(texts), 2048):
        for encoding in tokenizer.encode_batch(list(texts[start : start + 2048]), add_special_tokens=False):
            found.append([word for word in words_of(source, encoding) if len(word) > 1])
    return found


def _merges(written: Iterator[str], size: int) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=_MIN_FREQUENCY, show_progress=False)
    tokenizer.train_from_iterator(written, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
