"""Texts as they read with any part of a vocabulary; ids are always those of the whole one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from emb.vocabulary.choice import highest
from emb.vocabulary.closure import ranks_of, steps_to
from emb.vocabulary.pieces import splitter
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.trim import only, trim
from emb.vocabulary.usage import counts_of

_CHUNK = 2048  # texts: an `Encoding` holds some 100 bytes per token until its ids are taken out


class Readings:
    """Texts beside a tokenizer of any kind, of which a part may be taken: `kept`, whose ids are those of the whole.

    Attributes:
        texts: as the tokenizer gets them (`TextTokenizer.written`); they are read whole.
        always: ids that must stay: those asked for, those of `closure.always`, and what is on the way to them.
    """

    def __init__(self, source: TokenizerJson, texts: Sequence[str], asked: Collection[int] = ()) -> None:
        self.source, self.texts = source, texts
        self.always = trim(source, asked).kept

    @property
    def ids(self) -> list[int]:
        """The ids of the whole vocabulary, ascending."""
        return sorted(self.source.tokens)

    def tokenizer(self, kept: Sequence[int]) -> Tokenizer:
        """The tokenizer with the tokens `kept` alone; its ids are places in `kept`."""
        return only(self.source, list(kept)).tokenizer.tokenizer()

    def counts(self, kept: Sequence[int]) -> Tensor:
        """How often the texts use each id `(ids,)` when they are read with `kept` alone."""
        tokenizer, found = self.tokenizer(kept), torch.zeros(max(self.source.tokens) + 1, dtype=torch.float64)
        for start in range(0, len(self.texts), _CHUNK):
            rows = [each.ids for each in tokenizer.encode_batch_fast(list(self.texts[start : start + _CHUNK]))]
            found[list(kept)] += torch.from_numpy(counts_of([np.asarray(row) for row in rows], len(kept)))
        return found

    def pieces(self, ids: Iterable[int], kept: Collection[int]) -> dict[int, list[int]]:
        """What each of `ids` is read in when it is gone and the others of `kept` are there."""
        split, tokens, own = splitter(self.source, kept), self.source.tokens, self.source.pieces
        return {index: [own[piece] for piece in split(tokens[index])] for index in ids}

    def best(self, scores: Tensor, among: Sequence[int], rows: int) -> list[int]:
        """The ids of the `rows` tokens of `among` with the highest `scores` `(ids,)` of 0 and more, ascending.

        All that must stay are among them, and nothing else where they are more; of a BPE, whatever a kept token is
        merged from is there too.
        """
        ranked = torch.full_like(scores, -1.0)
        ranked[list(among)] = scores[list(among)]
        return highest(self._with_steps(ranked), max(rows, len(self.always)), self.always)

    def _with_steps(self, scores: Tensor) -> Tensor:
        """`scores`, of a BPE raised so that each token is above those that it is a step to."""
        if self.source.kind != "BPE":
            return scores
        found = scores.numpy().copy()
        for index, steps in self._steps:
            found[steps] = np.maximum(found[steps], np.nextafter(found[index], np.inf))
        return torch.from_numpy(found)

    @cached_property
    def _steps(self) -> list[tuple[int, list[int]]]:
        """Tokens, the longest first, and the steps to each but itself."""
        ranks, tokens = ranks_of(self.source), self.source.tokens
        order = sorted(self.source.pieces.values(), key=lambda index: -len(tokens[index]))
        return [(index, sorted(steps_to(self.source, index, ranks) - {index})) for index in order]
