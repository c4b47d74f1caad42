"""The bundle as sentence-transformers has it: one model whose `encode_query` and `encode_document` take two ways."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Router  # type: ignore[import-not-found, unused-ignore]
from torch import nn

from emb.runtime.encoder import Encoder


def write_router(
    folders: tuple[Path, Path], encoders: tuple[Encoder, Encoder], out: Path, trust_remote_code: bool
) -> None:
    """Write a model with the query encoder's and the documents' modules at `out`, both giving the queries' dims; the
    prompts, and whether vectors are normalised, are those of `encoders`.
    """
    query, document = (
        SentenceTransformer(str(folder), device="cpu", trust_remote_code=trust_remote_code) for folder in folders
    )
    routes = [[*query], [*document]]
    wide, dim = encoders[1].dim, encoders[0].dim
    if wide > dim:
        routes[1] += [_cut(wide, dim), *([Normalize()] if encoders[0].normalize else [])]
    prompts = {kind: each.prompt(kind) for kind, each in zip(("query", "document"), encoders, strict=True)}
    router = Router.for_query_document(query_modules=routes[0], document_modules=routes[1])
    model = SentenceTransformer(
        modules=[router], device="cpu", prompts=prompts, similarity_fn_name=query.similarity_fn_name
    )
    model.save_pretrained(str(out), create_model_card=False)


def _cut(wide: int, dim: int) -> Dense:
    """The first `dim` of `wide` numbers, as a module that every client loads."""
    dense = Dense(wide, dim, bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(torch.eye(dim, wide))
    return dense
