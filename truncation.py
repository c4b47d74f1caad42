"""What a model does not read of texts longer than its limit: counted, and said where it is much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.progress import warn
from emb.tokens import TextTokenizer

_SAID_ABOVE = 0.01  # of the texts
_CHUNK = 256  # texts whose every token is held at a time


@dataclass(frozen=True)
class Cut:
    """Of so many `texts`, how many were `cut` at `limit` tokens, and the `tokens_lost` by that."""

    texts: int
    cut: int
    tokens_lost: int
    limit: int

    def __add__(self, other: Cut) -> Cut:
        """Both together, of one limit."""
        return Cut(self.texts + other.texts, self.cut + other.cut, self.tokens_lost + other.tokens_lost, self.limit)


def count_cut(tokenizer: TextTokenizer, texts: Sequence[str], prompts: Sequence[str] | str = "", rows: Sequence[np.ndarray[Any, Any]] | None = None) -> Cut:
    """Count the `texts` that `tokenizer` cuts behind their `prompts` (one for all, or one per text), and the tokens lost.

    Args:
        rows: what `tokenizer.encode` gave for them, if that is known: then only texts as long as the limit are read again.
    """
    each = [prompts] * len(texts) if isinstance(prompts, str) else prompts
    rows = tokenizer.encode(texts, each) if rows is None else rows
    whole = [each[index] + texts[index] for index, row in enumerate(rows) if len(row) >= tokenizer.max_length]
    lost = [count for count in _lost(tokenizer, whole) if count]
    return Cut(len(texts), len(lost), sum(lost), tokenizer.max_length)


def tell(cut: Cut, what: str, mend: str = "") -> None:
    """Warn where more than 1 % of texts were cut; `what` says which texts they are, `mend` how more is read."""
    if cut.cut <= _SAID_ABOVE * cut.texts:
        return
    share = f"{cut.cut:,} of {cut.texts:,} ({cut.cut / cut.texts:.0%})"
    warn(f"{what}: {share} are longer than the {cut.limit:,} tokens that are read; {cut.tokens_lost:,} tokens are left out{mend and '; ' + mend}")


def _lost(tokenizer: TextTokenizer, whole: Sequence[str]) -> Iterable[int]:
    special = tokenizer.tokenizer.num_special_tokens_to_add(False)
    for start in range(0, len(whole), _CHUNK):
        chunk = whole[start : start + _CHUNK]
        # What was cut off lies beside each row, in pieces with special tokens of their own.
        for encoding in tokenizer.tokenizer.encode_batch_fast([text.lower() for text in chunk] if tokenizer.lowercase else chunk):
            yield sum(len(piece) - special for piece in encoding.overflowing)
