"""A query encoder with layers as the page runs it: the very ONNX file that `emb.load` opens, on onnxruntime-web."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emb.artifact.manifest import paths_of
from emb.errors import ArtifactError
from emb.progress import warn
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.runtime.sessions import Runner
from emb.search.web.onnxruntime import runtime
from emb.search.web.side import ONNX, QuerySide
from emb.search.web.static_side import openings
from emb.search.web.tokenizer import page_tokenizer
from emb.similarity import truncated

_TRIED = 3  # texts whose vectors the page compares before it answers
_DIGITS = 5


def layered_side(
    encoder: Encoder, folder: Path, dim: int, documents: Sequence[str], place: Path | None = None
) -> QuerySide:
    """The first `dim` dims of an exported `encoder`, which lies in `folder`.

    WebAssembly has kernels of its own for 8 bits, and they run on the reader's machine alone: the page holds itself
    against vectors of the beginnings of `documents` whenever it is opened.

    Raises:
        ArtifactError: no ONNX file, or a tokenizer that the page does not know.
        HubError: the runtime cannot be fetched.
    """
    model = _file(encoder, folder)
    tokenizer = page_tokenizer(encoder.tokenizer, encoder.prompt("query"))
    found = runtime(place)
    return QuerySide(
        ONNX,
        tokenizer | {"tried": _tried(encoder, openings(documents, _TRIED)[:_TRIED], dim)},
        {"model": ("model.onnx", model.read_bytes()), "runtime": ("onnxruntime.wasm", found.wasm)},
        dim,
        encoder.normalize or encoder.similarity_fn_name == "cosine",
        None,
        beside={"onnxruntime.js": found.script},
    )


def _tried(encoder: Encoder, texts: Sequence[str], dim: int) -> list[list[Any]]:
    """Texts that have tokens, each with its vector."""
    known = [text for text, ids in zip(texts, encoder.tokenizer.encode(texts), strict=True) if len(ids)]
    vectors = truncated(encoder.encode(known, kind="query"), dim).astype(float)
    return [[text, np.round(vector, _DIGITS).tolist()] for text, vector in zip(known, vectors, strict=True)]


def _file(encoder: Encoder, folder: Path) -> Path:
    """The file that `encoder` runs."""
    if not isinstance(encoder, ArtifactEncoder) or not isinstance(encoder.runner, Runner):
        raise ArtifactError(
            f"{folder}: the query encoder has layers and runs no ONNX file, which is what the page reads",
            "export it, for example: emb export FOLDER --layers 2 --int8",
        )
    variant, path = encoder.variant, folder / encoder.variant.file
    if variant.vector_dtype != "float32":
        raise ArtifactError(f"{path}: returns {variant.vector_dtype} vectors", "name a file that returns float32")
    if len(paths_of(folder, variant.file)) > 1:
        raise ArtifactError(f"{path}: keeps weights in a file beside it", "make it smaller: emb export --int8")
    if variant.weight_dtype != "int8":
        warn(f"{path.name}: {variant.weight_dtype} weights make a large download; emb export --int8 makes it smaller")
    return path
