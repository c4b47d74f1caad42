"""Rows of new tokens from those of the old tokens that they replace.

zip-tie takes their mean (Bailong, arXiv 2404.00862). "merge" takes the mean of two by two along the merges, "align" the
mean over the occurrences in texts (Mundra et al. 2024, arXiv 2406.11477), "first" the first one, "omp" a sparse
combination of whole old words that gives the model's own vector of the new one (as tokensurgeon does with a second
model's rows), "random" draws.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emb.similarity import Vectors
from emb.vocabulary.continued_bpe import Compounds
from emb.vocabulary.extend import Extended
from emb.vocabulary.tokenizer_json import TokenizerJson

METHODS = ("mean", "first", "merge", "align", "omp", "random")
_ATOMS = 8  # old words that an omp row is made of
_SAMPLE = 3000  # texts in which old and new tokens are laid side by side
_WORDS = 4000  # of them to choose from
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Ground:
    """What new rows are made from.

    Attributes:
        source: the tokenizer before; `table` has its rows `(old tokens, hidden)`.
        extended: the tokenizer with the new tokens.
        texts: what the vocabulary is fitted to; a sample of them is read.
        embed: the model's own vectors of texts, read by the tokenizer before.
    """

    source: TokenizerJson
    table: Vectors
    extended: Extended
    texts: Sequence[str]
    embed: Embed
    seed: int = 0

    @property
    def sample(self) -> Sequence[str]:
        """At most so many of the texts, spread over them."""
        return self.texts[:: -(-len(self.texts) // _SAMPLE) or 1]


def rows_of(method: str, ground: Ground) -> Vectors:
    """Rows of the new tokens `(added, hidden)` by one of `METHODS`."""
    return _MAKERS[method](ground).astype(np.float32)


def _mean(ground: Ground) -> Vectors:
    return np.stack([_of_pieces(ground, token).mean(0) for token in ground.extended.added])


def _first(ground: Ground) -> Vectors:
    return np.stack([_of_pieces(ground, token)[0] for token in ground.extended.added])


def _merge(ground: Ground) -> Vectors:
    return np.stack([_merged(ground, token) for token in ground.extended.added])


def _merged(ground: Ground, token: str) -> Vectors:
    made: Compounds = ground.extended.compounds
    if token not in made.by_token:
        return np.asarray(ground.table[ground.extended.pieces(ground.source, token)[0]])
    known = made.by_token[token]
    return np.asarray((_merged(ground, known.left) + _merged(ground, known.right)) / 2)


def _random(ground: Ground) -> Vectors:
    drawn = np.random.default_rng(ground.seed).standard_normal((len(ground.extended.added), ground.table.shape[1]))
    return np.asarray(drawn * ground.table.std(0) + ground.table.mean(0))


def _align(ground: Ground) -> Vectors:
    sums: dict[str, Vectors] = defaultdict(lambda: np.zeros(ground.table.shape[1]))
    counts: dict[str, int] = defaultdict(int)
    for token, ids in _aligned(ground):
        sums[token] += ground.table[ids].mean(0)
        counts[token] += 1
    plain = _mean(ground)
    added = ground.extended.added
    return np.stack([sums[token] / counts[token] if counts[token] else plain[row] for row, token in enumerate(added)])


def _aligned(ground: Ground) -> Iterator[tuple[str, list[int]]]:
    """Each occurrence of a new token in the texts with the old ids of the same stretch, where borders agree."""
    old, new = ground.source.tokenizer(), ground.extended.tokenizer.tokenizer()
    wanted = {ground.extended.tokenizer.pieces[token]: token for token in ground.extended.added}
    for text in ground.sample:
        before, after = (each.encode(text, add_special_tokens=False) for each in (old, new))
        begins = {start: place for place, (start, _) in reversed(list(enumerate(before.offsets)))}
        ends = {end: place for place, (_, end) in enumerate(before.offsets)}
        for index, (start, end) in zip(after.ids, after.offsets, strict=True):
            if index in wanted and start in begins and end in ends and begins[start] <= ends[end]:
                yield wanted[index], before.ids[begins[start] : ends[end] + 1]


def _omp(ground: Ground) -> Vectors:
    from sklearn.linear_model import orthogonal_mp  # type: ignore[import-untyped, unused-ignore]

    words = _whole_words(ground)
    known = ground.embed([ground.source.surface(ground.source.tokens[index]).strip() for index in words])
    said = ground.embed([ground.extended.tokenizer.surface(token).strip() for token in ground.extended.added])
    atoms = min(_ATOMS, len(words), known.shape[1])
    with warnings.catch_warnings():  # that fewer words than allowed give a vector whole is no matter
        warnings.simplefilter("ignore", RuntimeWarning)
        weights = orthogonal_mp(known.T.astype(np.float64), said.T.astype(np.float64), n_nonzero_coefs=atoms)
    return np.asarray(weights.reshape(len(words), -1).T @ ground.table[words])


def _whole_words(ground: Ground) -> list[int]:
    """The old tokens of three letters and more that the texts hold most often."""
    counts: dict[int, int] = defaultdict(int)
    for encoding in ground.source.tokenizer().encode_batch(list(ground.sample), add_special_tokens=False):
        for index in encoding.ids:
            counts[index] += 1
    fitting = [
        index
        for index in counts
        if ground.source.tokens[index] not in ground.source.added
        and not (ground.source.continuation and ground.source.tokens[index].startswith(ground.source.continuation))
        and len(ground.source.surface(ground.source.tokens[index]).strip()) > 2
    ]
    return sorted(sorted(fitting, key=lambda index: (-counts[index], index))[:_WORDS])


def _of_pieces(ground: Ground, token: str) -> Vectors:
    return np.asarray(ground.table[ground.extended.pieces(ground.source, token)])


_MAKERS: dict[str, Callable[[Ground], Vectors]] = {
    "mean": _mean,
    "first": _first,
    "merge": _merge,
    "align": _align,
    "omp": _omp,
    "random": _random,
}
