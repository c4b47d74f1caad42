"""A tokenizer with more tokens, each of which texts reach.

New tokens stand behind the old ones, whose ids stay. Merges of a BPE are appended: text encodes as before, and then
old tokens join, so that what a new one is made of is known to the piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emb.errors import UsageError
from emb.tokens import Ids
from emb.vocabulary.closure import closed
from emb.vocabulary.continued_bpe import Compound, Compounds, learn
from emb.vocabulary.letters import unknown_letters
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.usage import counts_of

_CANDIDATES, _MORE = 3, 200  # learned for each token wanted: many are steps to longer ones, and idle then
_ROUNDS = 8
_NEARLY = 0.95  # of the tokens wanted: the last few of thousands are not worth an error
_PREFERRED = 1e-3  # by how much a compound beats its parts at least
_SEEN = 20  # occurrences of a piece from which its score can be compared with its frequency


@dataclass(frozen=True)
class Extended:
    """A tokenizer with the `added` tokens behind the others, and what these are made of.

    The first of them may be letters that the tokenizer had not, which are made of nothing.
    """

    tokenizer: TokenizerJson
    added: list[str]
    compounds: Compounds

    def pieces(self, source: TokenizerJson, token: str) -> list[int]:
        """Ids in `source`, the tokenizer before, of what a new token was read in; of new letters its unknown one."""
        return [source.pieces.get(piece, source.unknown or 0) for piece in self.compounds.pieces(token)]


def extend(source: TokenizerJson, texts: Sequence[str], count: int) -> Extended:
    """`source` with `count` more tokens, learned from `texts` and used by them; a few less where some turn out idle.

    Letters that words of the texts are unknown without come first.

    Raises:
        UsageError: the texts do not hold so many.
    """
    letters = unknown_letters(source, texts)[:count]
    source = _with_letters(source, letters)
    known, reached = _learned(source, texts, count - len(letters))
    added = [*letters, *(each.token for each in reached)]
    if len(added) < _NEARLY * count:
        raise UsageError(
            f"--add {count}: the texts support {len(added):,} more tokens",
            f"add fewer (--add {len(added)}), or give more --data",
        )
    # Taking out what no text reaches changes how none of them is read.
    return Extended(_with(source, known, reached, texts), added, known)


def _with_letters(source: TokenizerJson, letters: Sequence[str]) -> TokenizerJson:
    tokens = [*(source.tokens[index] for index in sorted(source.tokens)), *letters]
    return source.with_vocabulary(tokens, source.scores, source.merges) if letters else source


def _learned(source: TokenizerJson, texts: Sequence[str], count: int) -> tuple[Compounds, list[Compound]]:
    """Compounds of the pieces of `source`, and at most `count` of them that texts reach."""
    known = learn(source, texts, _CANDIDATES * count + _MORE)
    ranked, idle = _ranked(source, known, texts), set[str]()
    for _ in range(_ROUNDS):
        taken = _first(source, ranked, idle, count)
        found = _with(source, known, taken, texts)
        unreached = _idle(found, [each.token for each in taken], texts)
        if not unreached or len(taken) < count:
            break
        idle |= unreached
    return known, [each for each in taken if each.token not in unreached]


def _ranked(source: TokenizerJson, known: Compounds, texts: Sequence[str]) -> list[Compound]:
    """Compounds by how many tokens each saves the texts where all are there; of a BPE, in the order of its merges.

    What is a step to a longer token saves nothing, and only a BPE has need of it.
    """
    if source.kind == "BPE" or not known.found:
        return list(known.found)
    found = _with(source, known, known.found, texts)
    counts = _counts(found, texts)

    def saved(each: Compound) -> int:
        return int(counts[found.pieces[each.token]]) * (len(known.pieces(each.token)) - 1)

    return sorted(known.found, key=lambda each: -saved(each))


def _first(source: TokenizerJson, ranked: Sequence[Compound], idle: set[str], count: int) -> list[Compound]:
    """The first compounds that are not idle; of a BPE, those whose two parts are there too."""
    there, taken = set(source.pieces), []
    for each in ranked:
        if each.token in idle or (source.kind == "BPE" and not {each.left, each.right} <= there):
            continue
        there.add(each.token)
        taken.append(each)
    return taken[:count]


def _with(source: TokenizerJson, made: Compounds, taken: Sequence[Compound], texts: Sequence[str]) -> TokenizerJson:
    tokens = [*(source.tokens[index] for index in sorted(source.tokens)), *(each.token for each in taken)]
    merges = [*source.merges, *((each.left, each.right) for each in taken)]
    if source.kind != "Unigram":
        return source.with_vocabulary(tokens, {}, merges)
    floor = _sums(source, made, taken)
    found = source.with_vocabulary(tokens, source.scores | floor, ())
    return source.with_vocabulary(tokens, source.scores | _fitted(source, found, floor, texts), ())


def _sums(source: TokenizerJson, made: Compounds, taken: Sequence[Compound]) -> dict[str, float]:
    """Of each compound the least score with which it is preferred to its own parts."""
    pieces = {each.token: made.pieces(each.token) for each in taken}
    return {
        token: sum(source.scores[piece] for piece in own) + _PREFERRED * (len(own) - 1) for token, own in pieces.items()
    }


def _fitted(
    source: TokenizerJson, found: TokenizerJson, floor: Mapping[str, float], texts: Sequence[str]
) -> dict[str, float]:
    """Log-probabilities of new pieces on the scale of the old ones, from how often `found`, in which they have their
    least scores, reads them.

    The scale is where old pieces that the texts use often have their scores beside the logarithm of their frequency.
    """
    counts = _counts(found, texts)
    shares = np.log(np.maximum(counts, 1) / max(1, counts.sum()))
    often = [(piece, index) for piece, index in source.pieces.items() if counts[index] >= _SEEN]
    apart = [source.scores[piece] - shares[index] for piece, index in often]
    scale = float(np.median(apart)) if apart else 0.0
    return {token: max(least, float(shares[found.pieces[token]]) + scale) for token, least in floor.items()}


def _idle(found: TokenizerJson, tokens: Sequence[str], texts: Sequence[str]) -> set[str]:
    """Of `tokens` those that no text reaches, and that are not on the way to one that is reached."""
    counts = _counts(found, texts)
    needed = closed(found, {found.pieces[token] for token in tokens if counts[found.pieces[token]]})
    return {token for token in tokens if found.pieces[token] not in needed}


def _counts(source: TokenizerJson, texts: Sequence[str]) -> Ids:
    tokenizer = source.tokenizer()
    rows = []
    for start in range(0, len(texts), 2048):
        batch = tokenizer.encode_batch_fast(list(texts[start : start + 2048]), add_special_tokens=False)
        rows += [np.asarray(each.ids, np.int64) for each in batch]
    return counts_of(rows, max(source.tokens) + 1)
