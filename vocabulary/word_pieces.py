"""A WordPiece vocabulary with fewer tokens: the tokenizer, how often texts use each, and what the others fall into."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from emb.errors import ArtifactError
from emb.tokens import TextTokenizer
from emb.vocabulary.closure import always
from emb.vocabulary.tokenizer_json import TokenizerJson
from emb.vocabulary.usage import counts_of


class WordPieces:
    """Texts as they read with any part of a WordPiece vocabulary; ids are always those of the whole one.

    Raises:
        ArtifactError: the tokenizer is of another kind, in which a token hangs on others.
    """

    def __init__(self, reader: TextTokenizer, texts: Sequence[str]) -> None:
        self.reader, self.source = reader, TokenizerJson.of(reader.tokenizer)
        self.texts = [text.lower() for text in texts] if reader.lowercase else list(texts)
        if self.source.kind != "WordPiece" or self.source.unknown is None:
            raise ArtifactError(
                f"the tokenizer is of kind {self.source.kind}, not WordPiece", "choose its rows by counts or by masks"
            )
        self.vocab, self.tokens = self.source.pieces, self.source.tokens
        self.prefix, self.unknown = self.source.continuation, self.source.unknown

    @property
    def ids(self) -> list[int]:
        """The ids of the whole vocabulary, ascending."""
        return sorted(self.tokens)

    @property
    def always(self) -> list[int]:
        """Ids that must stay, so that no word falls into nothing (`closure.always`)."""
        return sorted(always(self.source))

    def tokenizer(self, kept: Sequence[int]) -> Tokenizer:
        """The tokenizer with the tokens `kept` alone, which cuts where the model does; its ids are places in `kept`."""
        found = self.source.with_vocabulary([self.tokens[index] for index in kept], {}, ()).tokenizer()
        found.enable_truncation(self.reader.max_length, direction=self.reader.truncation_side)
        return found

    def counts(self, kept: Sequence[int]) -> Tensor:
        """How often the texts use each id `(tokens,)` when they are read with `kept` alone."""
        rows = [np.asarray(each.ids) for each in self.tokenizer(kept).encode_batch_fast(self.texts)]
        found = torch.zeros(max(self.tokens) + 1, dtype=torch.float64)
        found[list(kept)] = torch.from_numpy(counts_of(rows, len(kept))).double()
        return found

    def pieces(self, ids: Iterable[int], kept: Collection[int]) -> dict[int, list[int]]:
        """What each of `ids` falls into when it is gone and the others of `kept` are there: longest pieces first."""
        names = {self.tokens[index] for index in kept}
        return {index: self._split(self.tokens[index], names) for index in ids}

    def _split(self, token: str, names: Collection[str]) -> list[int]:
        word, found, start = token.removeprefix(self.prefix), list[int](), 0
        while start < len(word):
            head = self.prefix if start or word != token else ""
            whole = (head + word[start:end] for end in range(len(word), start, -1))
            piece = next((each for each in whole if each in names and each != token), None)
            if piece is None:
                return [self.unknown]
            found.append(self.vocab[piece])
            start += len(piece) - len(head)
        return found
