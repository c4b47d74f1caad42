"""Haystack: a bundle or a model as two components, one that embeds queries and one that embeds documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from emb.errors import DataError, UsageError, needs_extra
from emb.integrations.sides import Place, Sides
from emb.tokens import MAX_TEXTS

with needs_extra():
    from haystack import Document, component, default_from_dict, default_to_dict

_Self = TypeVar("_Self", bound="_Embedder")


class _Embedder:
    """A model that is opened by `warm_up`, or by the first run, and saved by its place."""

    # No constructor: Haystack makes each component's class anew, and `super()` would still mean the one before.
    def _set(self, place: Place, output: str, kind: Any, **options: Any) -> None:
        self._sides, self._options = Sides(place), options
        component.set_output_types(self, **{output: kind})

    def warm_up(self) -> None:
        """Open the model.

        Raises:
            ArtifactError: not a model folder or a bundle, or changed since it was written.
            MissingExtra: torch, or the runtime of `file`, is needed and not installed.
            UsageError: no such device here, or a file named of a bundle.
        """
        self._sides.open()

    def close(self) -> None:
        """Let go of the model; a run after that opens it again."""
        self._sides = Sides(self._sides.place)

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline's file has it."""
        saved: dict[str, Any] = default_to_dict(self, **vars(self._sides.place), **self._options)
        return saved

    @classmethod
    def from_dict(cls: type[_Self], data: dict[str, Any]) -> _Self:
        """The component that `to_dict` saved."""
        made: _Self = default_from_dict(cls, data)
        return made


@component
class EmbTextEmbedder(_Embedder):
    """The vector of a query, by the query encoder and behind its prompt.

    Attributes of the constructor: the folder of a bundle, an export or any sentence-transformers model; how many dims
    vectors are cut to, None for all; and `file`, `device`, `threads` and `verify` as in `emb.load`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        truncate_dim: int | None = None,
        file: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        verify: bool = True,
    ) -> None:
        """Say which model; `warm_up` opens it."""
        place = Place(str(model), file, device, threads, verify)
        self._set(place, "embedding", list[float], truncate_dim=truncate_dim)

    def run(self, text: str) -> dict[str, Any]:
        """`{"embedding": …}` of a query."""
        return {"embedding": self._sides.query(text, **self._options)}

    async def run_async(self, text: str) -> dict[str, Any]:
        """`run`, while the event loop goes on."""
        return {"embedding": await self._sides.query_async(text, **self._options)}


@component
class EmbDocumentEmbedder(_Embedder):
    """Documents with their vectors, by the documents' encoder and behind its prompt.

    Attributes of the constructor: as `EmbTextEmbedder`, and besides `batch_size`, texts that the model reads at once
    at most; `progress_bar`; `meta_fields_to_embed`, such as a title, which stand before the text, each behind
    `embedding_separator`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        truncate_dim: int | None = None,
        batch_size: int = MAX_TEXTS,
        progress_bar: bool = False,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        file: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        verify: bool = True,
    ) -> None:
        """Say which model; `warm_up` opens it."""
        self._set(
            Place(str(model), file, device, threads, verify),
            "documents",
            list[Document],
            truncate_dim=truncate_dim,
            batch_size=batch_size,
            progress_bar=progress_bar,
            meta_fields_to_embed=meta_fields_to_embed or [],
            embedding_separator=embedding_separator,
        )

    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`{"documents": …}`, copies of the documents with their vectors.

        Raises:
            DataError: a document without text.
        """
        return _with(documents, self._sides.documents(self._texts(documents), **self._how()))

    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run`, while the event loop goes on."""
        return _with(documents, await self._sides.documents_async(self._texts(documents), **self._how()))

    def _how(self) -> dict[str, Any]:
        names = {"truncate_dim": "truncate_dim", "batch_size": "batch_size", "progress_bar": "show_progress_bar"}
        return {name: self._options[own] for own, name in names.items()}

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list):
            raise UsageError(
                f"documents is a {type(documents).__name__}, and a list of Documents is taken",
                "a query goes to EmbTextEmbedder",
            )
        return [self._text(document) for document in documents]

    def _text(self, document: Document) -> str:
        if document.content is None:
            raise DataError(f"the document {document.id} holds no text", "leave it out, or give it a content")
        fields = (document.meta.get(name) for name in self._options["meta_fields_to_embed"])
        before = [str(value) for value in fields if value is not None]
        joined: str = self._options["embedding_separator"].join([*before, document.content])
        return joined


def _with(documents: list[Document], vectors: list[list[float]]) -> dict[str, Any]:
    return {"documents": [replace(each, embedding=vector) for each, vector in zip(documents, vectors, strict=True)]}
