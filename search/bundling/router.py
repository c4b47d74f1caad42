"""The bundle as sentence-transformers has it: one model whose `encode_query` and `encode_document` take two ways."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Router  # type: ignore[import-not-found, unused-ignore]
from torch import nn


def write_router(folders: tuple[Path, Path], dim: int, out: Path, trust_remote_code: bool) -> None:
    """Write a model with the query encoder's and the documents' modules at `out`, both giving `dim` numbers."""
    query, document = (
        SentenceTransformer(str(folder), device="cpu", trust_remote_code=trust_remote_code) for folder in folders
    )
    routes = [[*query], [*document]]
    wide = document.get_sentence_embedding_dimension()
    if wide is not None and wide > dim:
        routes[1] += [_cut(wide, dim), Normalize()]
    prompts = {"query": query.prompts.get("query") or "", "document": document.prompts.get("document") or ""}
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
