"""LlamaIndex: a bundle or a model as `BaseEmbedding`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.errors import UsageError, needs_extra
from emb.integrations.sides import Place, Sides

with needs_extra():
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from pydantic import ConfigDict, Field, PrivateAttr


class EmbEmbedding(BaseEmbedding):  # type: ignore[misc]  # Any, where it is not installed
    """Queries by the query encoder, texts by the documents' encoder, each behind its own prompt.

        index = VectorStoreIndex(nodes, embed_model=EmbEmbedding("bundles/papers"))

    `to_dict()` holds the model's place, not the model.

    Attributes:
        model_name: the folder of a bundle, an export or any sentence-transformers model.
        truncate_dim: how many dims vectors are cut to; None for all.
        embed_batch_size: texts that are encoded in one call. LlamaIndex's own default of 10 leaves a model that sorts
            texts by their length little to sort.
        file, device, threads, verify: as in `emb.load`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    embed_batch_size: int = Field(default=256, gt=0, le=2048)
    truncate_dim: int | None = Field(default=None, frozen=True)
    file: str | None = Field(default=None, frozen=True)
    device: str = Field(default="cpu", frozen=True)
    threads: int | None = Field(default=None, frozen=True)
    verify: bool = Field(default=True, frozen=True)
    _sides: Sides = PrivateAttr()

    def __init__(self, model_name: str | Path, **options: Any) -> None:
        """Open the model in the folder `model_name`.

        Raises:
            ArtifactError: not a model folder or a bundle, or changed since it was written.
            MissingExtra: torch, or the runtime of `file`, is needed and not installed.
            UsageError: no such device here, a file named of a bundle, or a cache that takes a query for a document.
        """
        super().__init__(model_name=str(model_name), **options)
        self._sides = Sides(Place(self.model_name, self.file, self.device, self.threads, self.verify))
        self._sides.open()
        if self.embeddings_cache is not None and not self._sides.alike:
            raise UsageError(
                f"embeddings_cache: it keeps one vector of each text, and {self.model_name} has two, of the text as a"
                " query and as a document",
                "leave it out; the cache of an IngestionPipeline holds documents alone",
            )

    @classmethod
    def class_name(cls) -> str:
        """The name in what is saved."""
        return "EmbEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._sides.query(query, truncate_dim=self.truncate_dim)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._sides.query_async(query, truncate_dim=self.truncate_dim)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._sides.documents(texts, truncate_dim=self.truncate_dim)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._sides.documents_async(texts, truncate_dim=self.truncate_dim)
