"""What a token is read in once it is gone, by kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Collection

from emb.vocabulary.closure import joined, ranks_of
from emb.vocabulary.tokenizer_json import TokenizerJson

_NEVER = float("-inf")


def splitter(source: TokenizerJson, kept: Collection[int]) -> Callable[[str], list[str]]:
    """A function from a token to the pieces that a tokenizer of the tokens `kept`, but without that one, makes of it.

    Of a BPE, `kept` must be closed (`closure.closed`). A function gives no pieces where there are none.
    """
    names = {source.tokens[index] for index in kept}
    if source.kind == "BPE":
        ranks = ranks_of(source)
        return lambda token: _last_parts(token, ranks, names)
    if source.kind == "Unigram":
        scores = {piece: score for piece, score in source.scores.items() if piece in names}
        longest = max(map(len, scores))
        return lambda token: _likeliest(token, scores, longest)
    return lambda token: _longest_first(token, names, source.continuation)


def _last_parts(token: str, ranks: dict[tuple[str, str], int], names: Collection[str]) -> list[str]:
    """The two that the last merge of a BPE joins: without it they stay apart."""
    parts = [each for each in joined(token, ranks) if len(each) > 1]
    return [each for each in parts[-1] if each in names] if parts else []


def _likeliest(token: str, scores: dict[str, float], longest: int) -> list[str]:
    """The pieces with the highest sum of scores (Kudo 2018, arXiv 1804.10959, section 3.2)."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # up to each letter, the score and where the last piece begins
    for end in range(1, len(token) + 1):
        starts = range(max(0, end - longest), end)
        others = (start for start in starts if end - start < len(token))
        best.append(max((best[start][0] + scores.get(token[start:end], _NEVER), start) for start in others))
    return _walked_back(token, [start for _, start in best]) if best[-1][0] > _NEVER else []


def _walked_back(token: str, starts: list[int]) -> list[str]:
    found, end = list[str](), len(token)
    while end:
        found.append(token[starts[end] : end])
        end = starts[end]
    return found[::-1]


def _longest_first(token: str, names: Collection[str], prefix: str) -> list[str]:
    """WordPiece's way: the longest piece that fits, again and again."""
    word, found, start = token.removeprefix(prefix), list[str](), 0
    while start < len(word):
        head = prefix if start or word != token else ""
        whole = (head + word[start:end] for end in range(len(word), start, -1))
        piece = next((each for each in whole if each in names and each != token), None)
        if piece is None:
            return []
        found.append(piece)
        start += len(piece) - len(head)
    return found
