"""A tokenizer as its `tokenizer.json` has it: of which kind it is, what its tokens say, and the same with other tokens.

The `tokenizers` library reads and runs such a file, and has no way to take a token out; so the file is edited.
Normaliser and pre-tokeniser stay as they are.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer, decoders

from emb.errors import ArtifactError

KINDS = ("WordPiece", "BPE", "Unigram")
SPACE = "▁"  # how BPE over letters and Unigram write a space


@dataclass(frozen=True)
class TokenizerJson:
    """The parsed content of a `tokenizer.json`."""

    state: dict[str, Any]

    @classmethod
    def of(cls, tokenizer: Any) -> TokenizerJson:
        """That of a `tokenizers.Tokenizer`, without its truncation and padding.

        Raises:
            ArtifactError: a kind of tokenizer that is not known here.
        """
        state = json.loads(tokenizer.to_str())
        kind = state["model"].get("type")
        if kind not in KINDS:
            raise ArtifactError(f"the tokenizer is of kind {kind}", f"known: {', '.join(KINDS)}")
        affixes = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if state["model"].get(name)]
        if kind == "BPE" and affixes:
            raise ArtifactError(f"the tokenizer is a BPE with {affixes[0]}", "known are byte-level BPE and BPE with ▁")
        return cls(state | {"truncation": None, "padding": None})

    def within(self, rows: int) -> TokenizerJson:
        """The same without added tokens beyond a table of so many `rows`: transformers adds one for masking to
        tokenizers that have none, and no text gets it.
        """
        added = [each for each in self.state["added_tokens"] if each["id"] < rows]
        return TokenizerJson(self.state | {"added_tokens": added})

    def tokenizer(self) -> Tokenizer:
        """It, to encode with."""
        return Tokenizer.from_str(json.dumps(self.state))

    @property
    def kind(self) -> str:
        """ "WordPiece", "BPE" or "Unigram"."""
        return str(self.state["model"]["type"])

    @cached_property
    def pieces(self) -> dict[str, int]:
        """Ids of the model's own tokens, without those that were added to it."""
        vocab = self.state["model"]["vocab"]
        if self.kind == "Unigram":
            return {piece: index for index, (piece, _) in enumerate(vocab)}
        return dict(vocab)

    @cached_property
    def added(self) -> dict[str, int]:
        """Ids of the tokens that were added, the special ones among them."""
        return {each["content"]: each["id"] for each in self.state["added_tokens"]}

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Every token by its id."""
        return {index: token for token, index in {**self.pieces, **self.added}.items()}

    @property
    def unknown(self) -> int | None:
        """Id of the token for what cannot be read, if there is one."""
        model = self.state["model"]
        if self.kind == "Unigram":
            return None if model.get("unk_id") is None else int(model["unk_id"])
        return self.pieces.get(model.get("unk_token") or "", self.added.get(model.get("unk_token") or ""))

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The merges of a BPE, in order; older files have them as one string each."""
        found = self.state["model"].get("merges", [])
        pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in found)
        return [(left, right) for left, right in pairs]

    @cached_property
    def byte_level(self) -> bool:
        """Whether its letters stand for bytes."""
        return '"ByteLevel"' in json.dumps([self.state["pre_tokenizer"], self.state["decoder"]])

    @property
    def continuation(self) -> str:
        """What stands before a piece of WordPiece that begins no word."""
        return str(self.state["model"].get("continuing_subword_prefix") or "") if self.kind == "WordPiece" else ""

    def surface(self, token: str) -> str:
        """The text that a token stands for; bytes that are no whole letter come out as �."""
        if token in self.added:
            return token
        if self.byte_level:
            return str(decoders.ByteLevel().decode([token]))
        if self.continuation:
            return token.removeprefix(self.continuation)
        return token.replace(SPACE, " ")

    def single(self, token: str) -> bool:
        """Whether a token is one letter or one byte: what any text can be broken into."""
        bare = token.removeprefix(self.continuation) if self.continuation else token
        return len(bare) == 1 or (len(token) == 6 and token.startswith("<0x") and token.endswith(">"))

    def with_vocabulary(
        self, tokens: Sequence[str], scores: Mapping[str, float], merges: Iterable[tuple[str, str]]
    ) -> TokenizerJson:
        """The same with `tokens` in this order, their places as ids; `scores` are those of a Unigram's pieces.

        Added tokens are written among the model's own: of those that are not, the library makes up the ids.
        """
        ids = {token: index for index, token in enumerate(tokens)}
        state = copy.deepcopy({key: value for key, value in self.state.items() if key != "model"})
        state["model"] = dict(self.state["model"])
        if self.kind == "Unigram":
            least = min(scores.values())
            state["model"]["vocab"] = [[token, scores.get(token, least)] for token in tokens]
            if self.unknown is not None:
                state["model"]["unk_id"] = ids[self.tokens[self.unknown]]
        else:
            state["model"]["vocab"] = ids
        if self.kind == "BPE":
            state["model"]["merges"] = [list(pair) for pair in merges]
        for each in state["added_tokens"]:
            each["id"] = ids[each["content"]]
        state["added_tokens"].sort(key=lambda each: each["id"])
        _renumber(state["post_processor"], ids)
        return TokenizerJson(state)

    @cached_property
    def scores(self) -> dict[str, float]:
        """The log-probabilities of a Unigram's pieces; of other kinds there are none."""
        return dict(self.state["model"]["vocab"]) if self.kind == "Unigram" else {}


def _renumber(processor: Any, ids: Mapping[str, int]) -> None:
    """Write the new ids of special tokens into a post-processor, whichever of the library's kinds it is."""
    if not isinstance(processor, dict):
        return
    for each in processor.get("processors", ()):
        _renumber(each, ids)
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name] = [processor[name][0], ids[processor[name][0]]]
    for each in (processor.get("special_tokens") or {}).values():
        each["ids"] = [ids[token] for token in each["tokens"]]
