"""A WordPiece vocabulary with fewer tokens: the tokenizer, how often texts use each, and what the others fall into."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from emb.errors import ArtifactError
from emb.tokens import TextTokenizer


class WordPieces:
    """Texts as they read with any part of a WordPiece vocabulary; ids are always those of the whole one.

    Raises:
        ArtifactError: the tokenizer is of another kind, in which a token hangs on others.
    """

    def __init__(self, reader: TextTokenizer, texts: Sequence[str]) -> None:
        self.state = json.loads(reader.tokenizer.to_str())  # it pads nothing, and cuts where the model does
        self.texts = [text.lower() for text in texts] if reader.lowercase else list(texts)
        model = self.state["model"]
        if model["type"] != "WordPiece":
            raise ArtifactError(
                f"the tokenizer is of kind {model['type']}, not WordPiece", "choose its rows by counts or by masks"
            )
        self.vocab: dict[str, int] = model["vocab"]
        self.tokens = {index: token for token, index in self.vocab.items()}
        self.prefix, self.unknown = model["continuing_subword_prefix"], self.vocab[model["unk_token"]]

    @property
    def ids(self) -> list[int]:
        """The ids of the whole vocabulary, ascending."""
        return sorted(self.tokens)

    @property
    def always(self) -> list[int]:
        """Ids that must stay: special tokens, and every single letter, so that no word falls into nothing."""
        letters = {index for token, index in self.vocab.items() if len(token.removeprefix(self.prefix)) == 1}
        return sorted({*letters, self.unknown, *(each["id"] for each in self.state["added_tokens"])})

    def tokenizer(self, kept: Sequence[int]) -> Tokenizer:
        """The tokenizer with the tokens `kept` alone; its ids are their places in `kept`."""
        new = {self.tokens[index]: place for place, index in enumerate(kept)}
        state = copy.deepcopy(self.state)
        state["model"]["vocab"] = new
        for added in state["added_tokens"]:
            added["id"] = new[added["content"]]
        for special in (state["post_processor"] or {}).get("special_tokens", {}).values():
            special["ids"] = [new[token] for token in special["tokens"]]
        return Tokenizer.from_str(json.dumps(state))

    def counts(self, kept: Sequence[int]) -> Tensor:
        """How often the texts use each id `(tokens,)` when they are read with `kept` alone."""
        found = torch.zeros(max(self.tokens) + 1, dtype=torch.float64)
        ids = torch.tensor(kept)
        for encoding in self.tokenizer(kept).encode_batch_fast(self.texts):
            places = ids[torch.tensor(encoding.ids, dtype=torch.long)]
            found.index_add_(0, places, torch.ones(len(places), dtype=torch.float64))
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
