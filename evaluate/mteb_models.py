"""Our encoders behind mteb's two protocols: `EncoderProtocol`, and `SearchProtocol` where two models share a search.

An object without `encode` can do nothing but search. That is why a pair has only the second: in a task without queries
and documents nobody could say which of the two models a text is meant for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import UsageError, needs_extra
from emb.similarity import Vectors, similarities

Encode = Callable[[Sequence[str], str], Vectors]  # texts, "query" or "document" → (texts, dim)
_ORGANISATION = "emb"  # mteb wants names of the form owner/model
_ONLY_SPEED = {"batch_size", "show_progress_bar"}  # our batches are of tokens


@dataclass(frozen=True)
class Facts:
    """What mteb's `ModelMeta` says of a model.

    Attributes:
        name: without an owner.
        revision: a fingerprint of what its vectors depend on.
        dim: width of the vectors that are scored.
        max_length: tokens of a text that are read.
        similarity: what vectors are compared with.
        framework: what runs it, in mteb's words.
        prompts: whether any stands before texts.
        teacher: the model that it was distilled from, or that encodes its documents.
    """

    name: str
    revision: str
    dim: int
    max_length: int
    similarity: str
    framework: tuple[str, ...]
    prompts: bool
    teacher: str | None = None

    def meta(self) -> Any:
        """The `mteb.models.ModelMeta`; what nobody knows stays empty.

        Raises:
            MissingExtra: mteb is not installed.
        """
        with needs_extra():
            from mteb.models.model_meta import ModelMeta, ScoringFunction
        return ModelMeta.create_empty(
            {
                "name": f"{_ORGANISATION}/{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)}",
                "revision": self.revision,
                "max_tokens": self.max_length,
                "embed_dim": self.dim,
                "similarity_fn_name": ScoringFunction(self.similarity),
                "framework": list(self.framework),
                "use_instructions": self.prompts,
                "adapted_from": self.teacher,
            }
        )


class EncoderModel:
    """mteb's `EncoderProtocol`: texts with the prompt of queries where mteb says that they are, else of documents."""

    def __init__(self, encode: Encode, facts: Facts) -> None:
        self._encode, self._similarity, self._meta = encode, facts.similarity, facts.meta()

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's `ModelMeta`."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> Vectors:
        """Vectors `(texts, dim)` float32 of batches of texts, as mteb's data loaders give them.

        Raises:
            UsageError: an option that would change the vectors, such as mteb's `precision`.
        """
        if unknown := options.keys() - _ONLY_SPEED:
            raise UsageError(
                f"encode_kwargs {min(unknown)}: vectors are made as the model makes them",
                "leave it out; other precisions are files of an export: emb export --int8",
            )
        texts = [text for batch in inputs for text in batch["text"]]
        return self._encode(texts, "query" if prompt_type is not None and prompt_type.value == "query" else "document")

    def similarity(self, a: Any, b: Any) -> Vectors:
        """How close each row of `a` is to each of `b`, by the model's own measure: `(rows of a, rows of b)` float32."""
        return similarities(np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b)), self._similarity)

    def similarity_pairwise(self, a: Any, b: Any) -> Vectors:
        """How close each row of `a` is to the same row of `b`: `(rows,)` float32."""
        rows = zip(np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b)), strict=True)
        return np.asarray([self.similarity(one, other)[0, 0] for one, other in rows], np.float32)


class SearchModel:
    """mteb's `SearchProtocol`: one model encodes documents and another the queries; mteb's own exact search ranks."""

    def __init__(self, encode: Encode, facts: Facts) -> None:
        with needs_extra():
            from mteb.models import SearchEncoderWrapper
        self._search = SearchEncoderWrapper(EncoderModel(encode, facts))

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's `ModelMeta`."""
        return self._search.mteb_model_meta

    def index(self, corpus: Any, **options: Any) -> None:
        """Take the documents to search."""
        self._search.index(corpus, **options)

    def search(self, queries: Any, **options: Any) -> dict[str, dict[str, float]]:
        """The `top_k` documents of each query and how close they are, by their ids."""
        found: dict[str, dict[str, float]] = self._search.search(queries, **options)
        return found
