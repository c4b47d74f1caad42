"""A loaded model held against sentence-transformers' own output: the same ids, the same vectors, or a refusal.

sentence-transformers is the reference because it is what a folder was published with. A setting that we read
otherwise than it does shows here, whatever its name, before anything is built on the vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emb.errors import ArtifactError, EmbError, first_line
from emb.similarity import cosines

if TYPE_CHECKING:
    from emb.model.embedding_model import EmbeddingModel

LEAST_COSINE = {torch.float32: 0.9999, torch.float16: 0.999, torch.bfloat16: 0.998}
# Whitespace around a text is left out: sentence-transformers 5 strips it and 6 does not.
_TEXTS = (
    "time",
    "How many people know the number of the house?",
    "ΟΔΥΣΣΕΥΣ and the Straße of İstanbul, naïve CAFÉ",
    "see him go over there and come back with water for all of the people, " * 4 + "and then sleep",
)


def check_reference(loaded: Any, model: EmbeddingModel, source: str | Path) -> None:
    """Compare ids of short and over-long texts, and vectors of short ones, each alone, behind the prompt of each kind.

    Args:
        loaded: the folder as sentence-transformers has it.
        model: what this package made of it.

    Raises:
        ArtifactError: ids or vectors differ, or a vector is not finite.
    """
    for prompt in dict.fromkeys(["", model.spec.prompt("query"), model.spec.prompt("document")]):
        _compare_ids(loaded, model, source, [prompt + text for text in [*_TEXTS, _over_long(model)]])
        _compare_vectors(loaded, model, source, prompt)


@contextlib.contextmanager
def running(source: str | Path, encoder: torch.nn.Module) -> Iterator[None]:
    """Turn whatever an encoder raises on a text into an error that names both.

    Raises:
        ArtifactError: it failed.
    """
    try:
        yield
    except (EmbError, OSError, MemoryError):
        raise
    except Exception as error:  # what a model raises on ids or shapes that it does not take shares no base
        tried = f"from sentence_transformers import SentenceTransformer as S; S('{source}').encode('time ' * 99)"
        raise ArtifactError(
            f"{source}: {type(encoder).__name__} fails on a text ({first_line(error)})",
            f'try: python -c "{tried}"; where that fails too, its files do not belong together or its window'
            " (max_seq_length) is wrong; else this architecture is not supported",
        ) from error


def _over_long(model: EmbeddingModel) -> str:
    # Words that differ at both ends: the side that is cut shows in the ids.
    return " ".join(f"w{number}" for number in range(model.spec.max_length + 8))


def _compare_ids(loaded: Any, model: EmbeddingModel, source: str | Path, texts: Sequence[str]) -> None:
    # `tokenize` until sentence-transformers 5.
    theirs, ours = getattr(loaded, "preprocess", loaded.tokenize), model.tokenizer().encode(texts)
    for text, found in zip(texts, ours, strict=True):
        features = theirs([text])
        _refuse_types(features, source)
        expected = np.asarray(features["input_ids"]).reshape(-1)  # of a static model, of all texts in one row
        if _beyond(loaded, model) and len(found) == model.spec.max_length:
            continue
        if not np.array_equal(expected, found):
            what = (
                f"{len(found)} token ids, sentence-transformers {len(expected)}"
                if len(found) != len(expected)
                else "other token ids than sentence-transformers"
            )
            raise ArtifactError(
                f"{source}: {text[:40]!r} gets {what}: a setting of its tokenizer is not carried (truncation side,"
                " lower case, window)",
                "compare tokenizer_config.json and sentence_bert_config.json with those of a model that works",
            )


def _refuse_types(features: Any, source: str | Path) -> None:
    if "token_type_ids" in features and np.asarray(features["token_type_ids"]).any():
        raise ArtifactError(
            f"{source}: its tokenizer gives token types other than 0 (token_type_ids), which are not carried",
            "encode with sentence-transformers; of what is written here, ids and mask are the only inputs",
        )


def _compare_vectors(loaded: Any, model: EmbeddingModel, source: str | Path, prompt: str) -> None:
    least = LEAST_COSINE.get(next(model.encoder.parameters()).dtype, LEAST_COSINE[torch.float32])
    whole = [text for text in _TEXTS if len(model.tokenizer().encode([text], prompt)[0]) < model.spec.max_length]
    texts = whole or list(_TEXTS[:1]) if _beyond(loaded, model) else list(_TEXTS)
    expected = np.stack(
        [np.asarray(loaded.encode(text, prompt=prompt, show_progress_bar=False), np.float32) for text in texts]
    )
    found = np.stack([_vector(model, prompt + text) for text in texts])
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        raise ArtifactError(
            f"{source}: its vectors are not finite (NaN or infinity)",
            "the weights are damaged, or too large for the precision; download them again",
        )
    if expected.shape != found.shape:
        raise ArtifactError(
            f"{source}: vectors of {found.shape[1]} dims, sentence-transformers gives {expected.shape[1]}",
            "one of its modules is not carried",
        )
    worst = float(cosines(expected, found).min())
    if worst < least:
        raise ArtifactError(
            f"{source}: vectors differ from those of sentence-transformers (smallest cosine {worst:.4f}, {least} is"
            " needed)",
            f"{type(model.encoder).__name__} with {model.spec.pooling} pooling is not carried as it should be; encode"
            " with sentence-transformers",
        )


def _beyond(loaded: Any, model: EmbeddingModel) -> bool:
    """Whether sentence-transformers hands the model more tokens than it has rows of positions for, and fails on them
    itself.
    """
    return bool(loaded.max_seq_length and loaded.max_seq_length > model.spec.max_length)


def _vector(model: EmbeddingModel, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    padder = model.tokenizer()
    [(_, vectors)] = model.embed_ids(padder.encode([text]))
    return np.asarray(vectors[0].numpy())
