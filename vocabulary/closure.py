"""What else must stay so that a token can still be read, and text without it falls into smaller pieces, not into
silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emb.vocabulary.tokenizer_json import SPACE, TokenizerJson


def always(source: TokenizerJson) -> set[int]:
    """Tokens that stay whatever the texts are: added ones, that for the unknown, single letters and bytes, and every
    token with a letter that has no piece of its own.
    """
    kept = {*source.added.values(), *([] if source.unknown is None else [source.unknown])}
    kept |= {index for token, index in source.pieces.items() if source.single(token) or token == SPACE}
    kept |= {index for token, index in source.pieces.items() if not _breaks(source, token)}
    if source.scores:  # what an unknown letter costs is reckoned from the least likely piece
        least = min(source.scores, key=lambda piece: source.scores[piece])
        kept.add(source.pieces[least])
    return kept


def _breaks(source: TokenizerJson, token: str) -> bool:
    """Whether every letter of a token has a piece of its own, as it stands there."""
    if source.kind == "BPE":
        return all(letter in source.pieces for letter in token) or bool(source.state["model"].get("byte_fallback"))
    if source.kind == "Unigram":
        return all(letter in source.pieces for letter in token)
    prefix = source.continuation
    first, rest = (prefix, token.removeprefix(prefix)) if prefix and token.startswith(prefix) else ("", token)
    return all((prefix if place else first) + letter in source.pieces for place, letter in enumerate(rest))


def closed(source: TokenizerJson, kept: Iterable[int]) -> set[int]:
    """`kept`, and of a BPE every token on the way to one of them: without it the merges never get there."""
    found = set(kept)
    if source.kind == "BPE":
        ranks = ranks_of(source)
        for index in list(found):
            found |= steps_to(source, index, ranks)
    return found


def ranks_of(source: TokenizerJson) -> dict[tuple[str, str], int]:
    """The merges of a BPE with their ranks."""
    return {pair: rank for rank, pair in enumerate(source.merges)}


def steps_to(source: TokenizerJson, index: int, ranks: dict[tuple[str, str], int]) -> set[int]:
    """The ids of every token that the merges make of the letters of a token on the way to it, and of these."""
    token = source.tokens[index]
    if token in source.added:
        return set()
    return {source.pieces[each] for parts in joined(token, ranks) for each in parts if each in source.pieces}


def joined(token: str, ranks: dict[tuple[str, str], int]) -> Iterator[list[str]]:
    """The parts of a token: its letters at first, then after each merge.

    In a text the merges inside of a token are those of the token alone: one across its border would have come first
    there as well, and then it would be no token of that text.
    """
    parts = list(token)
    yield parts
    while len(parts) > 1:
        pairs = [(ranks.get((left, right), len(ranks)), place) for place, (left, right) in _neighbours(parts)]
        rank, place = min(pairs)
        if rank == len(ranks):
            return
        parts = [*parts[:place], parts[place] + parts[place + 1], *parts[place + 2 :]]
        yield parts


def _neighbours(parts: list[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    for place in range(len(parts) - 1):
        yield place, (parts[place], parts[place + 1])
