"""From what a request holds to token ids: texts that cannot be read right are refused, never read some other way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emb.search.server.problems import EMPTY, INVALID, TOO_LARGE, UNREADABLE, Problem
from emb.tokens import Rows, TextTokenizer

Inputs = str | list[str] | list[int] | list[list[int]]


def listed(inputs: Inputs, param: str, most: int) -> list[str] | list[list[int]]:
    """What a request asks vectors for, as a list.

    Raises:
        Problem: nothing, or more than `most` texts.
    """
    if isinstance(inputs, str):
        return [inputs]
    if not inputs:
        raise Problem(EMPTY, f"{param} is empty", param)
    if isinstance(inputs[0], int):
        return [inputs]
    if len(inputs) > most:
        raise Problem(TOO_LARGE, f"{param}: {len(inputs):,} texts, and a request may have {most:,}", param)
    return inputs


def text_rows(tokenizer: TextTokenizer, texts: Sequence[str], prompt: str, *, truncate: bool, param: str) -> Rows:
    """Token ids of `texts` behind their `prompt`.

    Raises:
        Problem: a text that is empty, no Unicode, has a NUL in it, or is too long and not to be truncated.
    """
    for place, text in enumerate(texts):
        check_text(text, f"{param}[{place}]", param)
    rows = tokenizer.read(texts, prompt)
    cut = sum(longer for _, longer in rows)
    if cut and not truncate:
        limit = tokenizer.max_length
        said = f"{param}: {cut:,} of {len(texts):,} texts are longer than the {limit:,} tokens that are read"
        raise Problem(TOO_LARGE, said, param)
    return [ids for ids, _ in rows]


def id_rows(tokenizer: TextTokenizer, ids: Sequence[Sequence[int]], param: str) -> Rows:
    """Token ids as they were sent: those of this model's tokenizer, with its special tokens.

    Raises:
        Problem: a text of no tokens or of too many, or an id that the tokenizer does not have, which is likely to come
            from another tokenizer.
    """
    size = tokenizer.tokenizer.get_vocab_size()
    for place, row in enumerate(ids):
        if not row:
            raise Problem(EMPTY, f"{param}[{place}] holds no token", param)
        if len(row) > tokenizer.max_length:
            said = f"{param}[{place}]: {len(row):,} tokens, and {tokenizer.max_length:,} are read"
            raise Problem(TOO_LARGE, said, param)
        if not 0 <= min(row) <= max(row) < size:
            said = f"{param}[{place}]: this tokenizer's ids end at {size - 1}; another's mean other words"
            raise Problem(INVALID, said, param)
    return [np.asarray(row, np.int32) for row in ids]


def check_text(text: str, name: str, param: str) -> None:
    """Refuse a text that no tokenizer reads right; `name` is what the request calls it.

    Raises:
        Problem: it is empty, no Unicode, or has a NUL in it.
    """
    if not text:
        raise Problem(EMPTY, f"{name} is an empty text", param)
    if "\0" in text:
        raise Problem(UNREADABLE, f"{name} holds a NUL character", param)
    try:
        text.encode()
    except UnicodeEncodeError:
        said = f"{name} is no valid Unicode: it holds half of a surrogate pair"
        raise Problem(UNREADABLE, said, param) from None
