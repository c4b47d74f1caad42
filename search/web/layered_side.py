"""A query encoder with layers as the page runs it: the very ONNX file that `emb.load` opens, on onnxruntime-web."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emb.artifact.manifest import paths_of
from emb.errors import ArtifactError
from emb.progress import warn
from emb.runtime.encoder import ArtifactEncoder, Encoder
from emb.runtime.sessions import Runner
from emb.search.web.onnxruntime import Runtime, runtime
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
    asked = openings(documents, _TRIED)[:_TRIED]
    vectors = truncated(encoder.encode(asked, kind="query"), dim)
    tried = [
        [text, np.round(vector, _DIGITS).tolist()] for text, vector in zip(asked, vectors.astype(float), strict=True)
    ]
    found: Runtime = runtime(place)
    return QuerySide(
        ONNX,
        tokenizer | {"tried": tried},
        {"model": ("model.onnx", model.read_bytes()), "runtime": ("onnxruntime.wasm", found.wasm)},
        dim,
        encoder.normalize or encoder.similarity_fn_name == "cosine",
        None,
        beside={"onnxruntime.js": found.script},
    )


def _file(encoder: Encoder, folder: Path) -> Path:
    """The file that `encoder` runs."""
    if not isinstance(encoder, ArtifactEncoder) or not isinstance(encoder.runner, Runner):
        raise ArtifactError(
            f"{folder}: holds no ONNX file, which the page runs where an encoder has layers",
            "export it, for example: emb export FOLDER --layers 2 --int8",
        )
    path = folder / encoder.variant.file
    if len(paths_of(folder, encoder.variant.file)) > 1:
        raise ArtifactError(
            f"{path}: keeps its weights in a file beside it, which the page does not read", "export fewer layers"
        )
    if encoder.variant.weight_dtype != "int8":
        warn(
            f"{path.name}: {encoder.variant.weight_dtype} weights make a large download; emb export --int8 quarters it"
        )
    return path
