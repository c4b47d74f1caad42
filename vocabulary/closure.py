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
    if source.kind != "BPE":
        return found
    ranks = {pair: rank for rank, pair in enumerate(source.merges)}
    for index in list(found):
        token = source.tokens[index]
        if token not in source.added:
            found |= {source.pieces[step] for step in _steps(token, ranks) if step in source.pieces}
    return found


def _steps(token: str, ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Every token that the merges make of the letters of `token`, and these.

    In a text the merges inside of a token are those of the token alone: one across its border would have come first
    there as well, and then it would be no token of that text.
    """
    parts = list(token)
    yield from parts
    while len(parts) > 1:
        pairs = [(ranks.get((left, right), len(ranks)), place) for place, (left, right) in _neighbours(parts)]
        rank, place = min(pairs)
        if rank == len(ranks):
            return
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        yield parts[place]


def _neighbours(parts: list[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    for place in range(len(parts) - 1):
        yield place, (parts[place], parts[place + 1])
