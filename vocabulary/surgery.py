"""A model with another tokenizer: its token table, its config and its tokenizer changed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from emb.errors import ArtifactError
from emb.model.embedding_model import EmbeddingModel
from emb.model.static import StaticEncoder
from emb.vocabulary.tokenizer_json import TokenizerJson

ROWS = 8  # tables have a multiple of so many rows: what matrix units of GPUs and CPUs want


def tokenizer_json(model: EmbeddingModel) -> TokenizerJson:
    """The tokenizer of a model, as a file that can be edited.

    Raises:
        ArtifactError: a kind that is not known, or one of Python alone.
    """
    backend = getattr(model.hf_tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ArtifactError(
            f"the tokenizer {type(model.hf_tokenizer).__name__} is written in Python and has no tokenizer.json",
            "convert it to a fast one: transformers.AutoTokenizer.from_pretrained(folder, use_fast=True)",
        )
    return TokenizerJson.of(backend).within(len(table_of(model)))


def table_of(model: EmbeddingModel) -> Tensor:
    """The token table `(rows, hidden)` itself."""
    return embedding_of(model).weight


def embedding_of(model: EmbeddingModel) -> nn.Embedding:
    """The module that looks it up."""
    table = model.encoder.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def fixed_ids(model: EmbeddingModel) -> list[int]:
    """Ids that must stay: special tokens, those that the config names, and where positions are counted from behind
    the padding token (RoBERTa, MPNet) all up to that: another id for it would move every position.
    """
    found = {int(index) for index in model.hf_tokenizer.all_special_ids if index < len(table_of(model))}
    for value in _token_ids(model.encoder.config).values():
        found |= set(value) if isinstance(value, list) else {value}
    embeddings = getattr(model.encoder, "embeddings", None)
    offset = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return sorted(found | set(range(0 if offset is None else offset + 1)))


def replace_vocabulary(
    model: EmbeddingModel, tokenizer: TokenizerJson, kept: Sequence[int], added: Tensor | None = None
) -> None:
    """Give `model`, in place, another tokenizer: its first tokens are those with the former ids `kept`, behind them
    stand new ones with the rows `added` `(new, hidden)`.

    Raises:
        ArtifactError: a parameter besides the token table has a row per token.
    """
    table = embedding_of(model)
    _refuse_other_tables(model, table)
    rows = table.weight.detach()[list(kept)]
    rows = rows if added is None else torch.cat([rows, added.to(rows)])
    if isinstance(model.encoder, StaticEncoder):  # here the table is all there is to compute with
        model.encoder.keep_weights(kept, len(rows))
    else:
        rows = nn.functional.pad(rows, (0, 0, 0, -len(rows) % ROWS))
    ids = {old: new for new, old in enumerate(kept)}
    replacement = nn.Embedding(
        len(rows), rows.shape[1], padding_idx=None if table.padding_idx is None else ids[table.padding_idx]
    )
    replacement.weight = nn.Parameter(rows.clone(), requires_grad=table.weight.requires_grad)
    model.encoder.set_input_embeddings(_like(table, replacement))
    model.encoder.config.vocab_size = len(rows)
    for name, value in _token_ids(model.encoder.config).items():
        setattr(model.encoder.config, name, [ids[each] for each in value] if isinstance(value, list) else ids[value])
    model.hf_tokenizer = wrapped(model.hf_tokenizer, tokenizer)


def wrapped(former: Any, tokenizer: TokenizerJson) -> PreTrainedTokenizerFast:
    """`tokenizer` with the special tokens, window and padding side of `former`.

    Of no named class: some of these make their tokens anew, whatever the file says.
    """
    known = {*tokenizer.pieces, *tokenizer.added}
    named = former.special_tokens_map.items()
    names = {name: token for name, token in named if isinstance(token, str) and token in known}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.tokenizer(),
        model_max_length=former.model_max_length,
        padding_side=former.padding_side,
        truncation_side=former.truncation_side,
        model_input_names=list(former.model_input_names),
        **names,
    )


def _like(table: nn.Embedding, replacement: nn.Embedding) -> nn.Embedding:
    """`replacement` as the kind of table it replaces: Gemma's scales what it looks up."""
    if type(table) is nn.Embedding:
        return replacement
    table.weight = replacement.weight
    table.num_embeddings, table.padding_idx = replacement.num_embeddings, replacement.padding_idx
    return table


def _token_ids(config: Any) -> Mapping[str, Any]:
    """What a config says of single tokens, `pad_token_id` and its like."""
    found = {name: value for name, value in vars(config).items() if name.endswith("_token_id")}
    return {name: value for name, value in found.items() if isinstance(value, int | list) and value not in (-1, [])}


def _refuse_other_tables(model: EmbeddingModel, table: nn.Embedding) -> None:
    size = table.num_embeddings
    if isinstance(model.encoder, StaticEncoder):
        return
    for name, parameter in model.encoder.named_parameters():
        if parameter.ndim and parameter.shape[0] == size and parameter is not table.weight:
            raise ArtifactError(
                f"{name} has a row per token too ({size:,}), and is not carried", "give the text encoder alone"
            )
