"""The encoder of a static model, of StaticEmbedding and model2vec: one row per token, no layers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from emb.files import write_json

MAX_LENGTH = 32768  # tokens, where the tokenizer names no window: a mean has none
_ONE = math.log(math.e - 1)  # softplus gives 1
_SPREAD = 0.02  # of random numbers in a row
_PADS = ("[PAD]", "<pad>", "<|endoftext|>")


class StaticConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """Sizes of a table of token rows, under the names that other encoders have for them."""

    model_type = "static"

    def __init__(self, vocab_size: int = 1, hidden_size: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.num_attention_heads = 0, 1


class StaticEncoder(PreTrainedModel):
    """Token states `(batch, tokens, hidden)` that are the tokens' own rows; their mean is the text vector."""

    config_class = StaticConfig
    weights: nn.Parameter | None

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.register_parameter("weights", None)
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    @classmethod
    def from_rows(cls, rows: Tensor) -> StaticEncoder:
        """An encoder over `rows` `(tokens, hidden)`."""
        encoder: StaticEncoder = cls(StaticConfig(*rows.shape))
        encoder.embedding.weight = nn.Parameter(rows)
        return encoder

    @classmethod
    def fresh(cls, vocab_size: int, hidden: int, seed: int) -> StaticEncoder:
        """Random rows, each with a weight of 1 that is trained beside it.

        A row says where a token points and its weight how much that counts in a mean; Adam, which moves every number
        by about as much, would take long to learn the second from the first.
        """
        drawn = torch.Generator().manual_seed(seed)
        encoder = cls.from_rows(torch.randn(vocab_size, hidden, generator=drawn) * _SPREAD)
        encoder.weights = nn.Parameter(torch.full((vocab_size,), _ONE))
        return encoder

    def keep_weights(self, kept: Sequence[int], count: int) -> None:
        """Of weights beside the rows, where there are some, those of the rows `kept`, and 1 up to a `count` of them."""
        if self.weights is not None:
            new = self.weights.new_full((count - len(kept),), _ONE)
            self.weights = nn.Parameter(torch.cat([self.weights.detach()[list(kept)], new]))

    def fold(self) -> None:
        """Put the weights into the rows: the same vectors, as StaticEmbedding and model2vec read them."""
        if self.weights is not None:
            rows = self.embedding.weight.detach() * nn.functional.softplus(self.weights.detach())[:, None]
            self.embedding.weight = nn.Parameter(rows)
            self.weights = None

    def write(self, folder: Path, *, normalize: bool) -> None:
        """Save table and config under the names that model2vec has for them, which sentence-transformers reads too."""
        table = self.embedding.weight.detach().cpu().contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"embeddings": table}, folder / "model.safetensors")
        sizes = {"vocab_size": len(table), "hidden_size": table.shape[1]}
        write_json(
            folder / "config.json",
            {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize, **sizes},
        )

    def get_input_embeddings(self) -> nn.Embedding:
        """The table."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table."""
        self.embedding = value  # type: ignore[assignment, unused-ignore]

    def set_attn_implementation(self, *_: Any) -> None:
        """Nothing attends here."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """The rows of `input_ids` `(batch, tokens)`; the mask counts in pooling alone."""
        rows = self.embedding(input_ids)
        if self.weights is not None:
            rows = rows * nn.functional.softplus(self.weights)[input_ids].unsqueeze(-1)
        return BaseModelOutput(last_hidden_state=rows)


def wrapped_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """A StaticEmbedding's tokenizer in the form that other models bring theirs in.

    No special tokens are added to a text, as StaticEmbedding adds none; its own truncation, if it has one, is the
    window.
    """
    state = json.loads(tokenizer.to_str())
    window = state["truncation"] or {"max_length": MAX_LENGTH, "direction": "Right"}
    plain = type(tokenizer).from_str(json.dumps(state | {"post_processor": None, "truncation": None, "padding": None}))
    pad = next((token for token in _PADS if plain.token_to_id(token) is not None), None)
    names = {"pad_token": pad} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        model_max_length=window["max_length"],
        truncation_side=window["direction"].lower(),
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def read_static(module: Any) -> tuple[StaticEncoder, PreTrainedTokenizerFast]:
    """Encoder, in float32, and tokenizer of a StaticEmbedding module."""
    return StaticEncoder.from_rows(module.embedding.weight.detach().float()), wrapped_tokenizer(module.tokenizer)
