"""The encoder of a static model, of StaticEmbedding and model2vec: one row per token, no layers."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

MAX_LENGTH = 32768  # tokens, where the tokenizer names no window: a mean has none
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

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        # StaticEmbedding's own name, under which it is saved.
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    @classmethod
    def from_rows(cls, rows: Tensor) -> StaticEncoder:
        """An encoder over `rows` `(tokens, hidden)`."""
        encoder: StaticEncoder = cls(StaticConfig(*rows.shape))
        encoder.embedding.weight = nn.Parameter(rows)
        return encoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The table."""
        return self.embedding

    def set_attn_implementation(self, *_: Any) -> None:
        """Nothing attends here."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """The rows of `input_ids` `(batch, tokens)`; the mask counts in pooling alone."""
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


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
