"""Which tokens stay, and the tokenizer without the others.

MAFT (arXiv 2204.06487) takes out the tokens of scripts that are not needed; here the texts say what is needed, scripts
and lists may add to it, and what the kept tokens are made of stays with them (`closure`). Text of kept tokens alone
encodes as before, with other ids.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from emb.errors import UsageError
from emb.tokens import Ids
from emb.vocabulary.closure import always, closed
from emb.vocabulary.tokenizer_json import TokenizerJson


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer tokens, and `kept`: the former ids of its tokens, in the order of their new ones."""

    tokenizer: TokenizerJson
    kept: list[int]

    @property
    def id_map(self) -> dict[int, int]:
        """New ids by former ones."""
        return {old: new for new, old in enumerate(self.kept)}


def covering(counts: Ids, coverage: float, among: Collection[int]) -> set[int]:
    """The fewest tokens of `among` that make up `coverage`, 0 to 1, of all their occurrences; of equals the first ids.

    `counts` is how often each id occurs `(ids,)`. What never occurs covers nothing, so it is not among them.
    """
    ids = np.asarray(sorted(among), np.int64)
    found = counts[ids]
    order = np.argsort(-found, kind="stable")
    reached = np.cumsum(found[order])
    if not len(ids) or not reached[-1]:
        return set()
    # Reckoned in whole occurrences: a share of 1 must reach the last of them.
    enough = int(np.searchsorted(reached, np.ceil(coverage * reached[-1] - 1e-9))) + 1
    return {int(ids[place]) for place in order[:enough] if found[place]}


def of_scripts(source: TokenizerJson, scripts: Collection[str]) -> set[int]:
    """Tokens whose letters all belong to `scripts`, named as Unicode does ("Latin", "Cyrillic", "CJK").

    Raises:
        UsageError: a script of which the vocabulary has no letter.
    """
    wanted = {name.upper() for name in scripts}
    of_token = {index: scripts_of(source.surface(token)) for token, index in source.pieces.items()}
    known = set().union(*of_token.values())
    if missing := wanted - known:
        raise UsageError(
            f"--keep-scripts {', '.join(sorted(missing)).title()}: no token has a letter of that",
            f"scripts of this vocabulary: {', '.join(sorted(name.title() for name in known))}",
        )
    return {index for index, found in of_token.items() if found and found <= wanted}


def scripts_of(text: str) -> set[str]:
    """The scripts of the letters of a text, in capitals, by the first word of each letter's name in Unicode."""
    return {_script(letter) for letter in text if letter.isalpha()}


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]


def trim(source: TokenizerJson, wanted: Collection[int], fixed: Sequence[int] = ()) -> Trimmed:
    """`source` with the `wanted` tokens, those that must stay with them, and the ids `fixed`.

    Ids keep their order.
    """
    return only(source, sorted(closed(source, {*wanted, *always(source), *fixed}) & source.tokens.keys()))


def only(source: TokenizerJson, kept: list[int]) -> Trimmed:
    """`source` with the tokens `kept` and no other, which must be all that `trim` would keep with them."""
    names = [source.tokens[index] for index in kept]
    stays = set(names)
    merges = [(a, b) for a, b in source.merges if a in stays and b in stays and a + b in stays]
    scores = {piece: score for piece, score in source.scores.items() if piece in stays}
    return Trimmed(source.with_vocabulary(names, scores, merges), kept)
