"""A traced graph, and a cut model, held against the model they came from before anything is built on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from emb.artifact.manifest import LayerDimPair
from emb.errors import ArtifactError, first_line
from emb.export.graph import architecture
from emb.model.batches import tensors
from emb.model.embedding_model import EmbeddingModel
from emb.runtime.sessions import open_session
from emb.similarity import Vectors
from emb.tokens import Ids

LONGEST = 512  # tokens: longer than the windows of local attention, short enough to take seconds
_SHORT = 24  # short rows: branches taken by what the ids are show on some of them
_UNSUPPORTED = "this architecture is not supported; encode with torch instead: emb encode IN OUT --model FOLDER"
_LIMIT = 5e-4  # relative error; rounding gives 1e-6 to 1e-5, a wrong mask or position 1e-2 and more


def check_graph(model: EmbeddingModel, path: Path) -> None:
    """Compare the graph at `path` with `model`: each row of tokens alone in torch, in batches in onnxruntime, padded on
    either side.

    The tracer keeps one run of Python's branches: an architecture whose branches depend on length, padding or what
    the tokens are comes out wrong, silently.

    Raises:
        ArtifactError: the vectors differ.
    """
    padder = model.tokenizer()
    with _told(model, "onnxruntime does not take the traced graph"):
        session = open_session(path)
    for rows in (_rows(model), _short_rows(model)):
        with torch.inference_mode(), _told(model, "the model fails on some rows of token ids"):
            expected = np.concatenate([model.embed(*tensors(padder.pad([row]), model)).float().numpy() for row in rows])
        for side in ("right", "left"):
            ids, mask = padder.pad(rows, side)
            with _told(model, "the traced graph fails on other lengths than those it was traced with"):
                (found,) = session.run([session.get_outputs()[0].name], {"input_ids": ids, "attention_mask": mask})
            _compare(
                expected,
                found,
                f"{architecture(model)}: the traced graph gives other vectors than the model, padded on the {side}",
            )


@contextlib.contextmanager
def _told(model: EmbeddingModel, what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # what torch and onnxruntime raise shares no base
        raise ArtifactError(f"{architecture(model)}: {what} ({first_line(error)})", _UNSUPPORTED) from error


def check_slice(model: EmbeddingModel, sliced: EmbeddingModel, pair: LayerDimPair) -> None:
    """Compare a slice with the exit it stands for.

    Raises:
        ArtifactError: the vectors differ: after its last layer, this architecture does more than the exit did in
            training.
    """
    if pair.layers not in model.exits:
        return  # nothing was trained there: the slice is what it is
    ids, mask = tensors(model.tokenizer().pad(_rows(model)[:2]), model)
    with torch.inference_mode():
        expected, found = (each.embed(ids, mask, pair).float().numpy() for each in (model, sliced))
    _compare(
        expected, found, f"{type(model.encoder).__name__}: cut to {pair}, the model gives other vectors than its exit"
    )


def _compare(expected: Vectors, found: Vectors, what: str) -> None:
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9))
    if not error <= _LIMIT:  # not a number is an error, too
        raise ArtifactError(f"{what} (relative error {error:.2g})", _UNSUPPORTED)


def _rows(model: EmbeddingModel) -> list[Ids]:
    """Token ids of three texts that mean nothing: short, middling and long."""
    words, longest = int(model.encoder.config.vocab_size), min(model.spec.max_length, LONGEST)
    ids = np.random.default_rng(0).integers(0, words, longest, np.int64)
    ids[ids == model.tokenizer().pad_id] = (model.tokenizer().pad_id + 1) % words  # to some encoders it is no token
    return [ids[: max(1, longest // 40)], ids[: max(2, longest // 3)], ids]


def _short_rows(model: EmbeddingModel) -> list[Ids]:
    """Token ids of rows of 1 to 8 tokens that mean nothing, and of the empty text, which has none in some models."""
    random, words = np.random.default_rng(1), int(model.encoder.config.vocab_size)
    pad, longest = model.tokenizer().pad_id, min(model.spec.max_length, 8)
    rows = [random.integers(0, words, 1 + index % longest, np.int64) for index in range(_SHORT)]
    return [
        *(np.where(row == pad, (pad + 1) % words, row) for row in rows),
        np.asarray(model.tokenizer().encode([""])[0], np.int64),
    ]
