"""Query texts made ready for an encoder, or refused."""

from __future__ import annotations

from emb.data.records import whole
from emb.errors import UsageError
from emb.progress import warn
from emb.runtime.encoder import Encoder
from emb.similarity import Vectors, first_not_finite
from emb.tokens import Row, Rows, TextTokenizer, count_cut, tell

_CHARACTERS = 64  # for each token that is read: what stands behind them is not even tokenised
_SHOWN = 40


class UnsearchableQuery(UsageError):
    """A query that has no meaning for the encoder."""


def query_vector(encoder: Encoder, text: str) -> Vectors:
    """The vector `(encoder's dim,)` of a query.

    A text that is longer than what the encoder reads is cut, with a warning.

    Raises:
        UnsearchableQuery: nothing in it that the encoder knows.
    """
    text = whole(text).replace("\0", " ").strip()
    if not text:
        raise UnsearchableQuery("the query is empty", "give a text to search for")
    read = beginning(text, encoder.tokenizer)
    if len(read) < len(text):
        warn(f"the query has {len(text):,} characters: {len(read):,} of them are looked at")
    return _encoded(encoder, read, entire=len(read) == len(text))


def beginning(text: str, tokenizer: TextTokenizer) -> str:
    """What is looked at of a query, which the tokenizer cuts further: its end where that side is kept."""
    most = _CHARACTERS * tokenizer.max_length
    return text[:most] if tokenizer.truncation_side == "right" else text[-most:]


def knows(tokenizer: TextTokenizer, text: str) -> bool:
    """Whether any token of `text` is more than the one for what is unknown."""
    return tokenizer.knows(tokenizer.encode([text])[0])


def _encoded(encoder: Encoder, text: str, *, entire: bool) -> Vectors:
    prompt = encoder.prompt("query")
    read: list[Rows] = []

    def seen(rows: Rows) -> None:
        read.append(rows)
        _require_known(encoder.tokenizer, rows[0], text, prompt)

    vector: Vectors = encoder.encode(text, kind="query", seen=seen)
    if not read:  # an encoder with an `encode` of its own, which does not tell what it read
        seen(encoder.tokenizer.encode([text], prompt))
        if first_not_finite(vector[None]) is not None:
            raise UnsearchableQuery("the query's vector is not finite", "search for something else")
    if entire and len(read[0][0]) >= encoder.max_length:
        tell(count_cut(encoder.tokenizer, [text], prompt, read[0]), "the query")
    return vector


def _require_known(tokenizer: TextTokenizer, row: Row, text: str, prompt: str) -> None:
    if not tokenizer.knows(row, prompt):
        raise UnsearchableQuery(
            f"the encoder knows no token of the query {text[:_SHOWN]!r}",
            "say it in words, in a language it was made for",
        )
