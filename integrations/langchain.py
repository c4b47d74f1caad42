"""LangChain: a bundle or a model as `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.errors import needs_extra
from emb.integrations.sides import Place, Sides
from emb.tokens import MAX_TEXTS

with needs_extra():
    from langchain_core.embeddings import Embeddings
    from pydantic import BaseModel, ConfigDict, PrivateAttr


class EmbEmbeddings(BaseModel, Embeddings):  # type: ignore[misc]  # Any, where it is not installed
    """Queries by the query encoder, documents by the documents' encoder, each behind its own prompt.

        vectors = InMemoryVectorStore(EmbEmbeddings("bundles/papers"))

    `model_dump()` holds the model's place, not the model.

    Attributes:
        model: the folder of a bundle, an export or any sentence-transformers model.
        truncate_dim: how many dims vectors are cut to; None for all.
        batch_size: texts that the model reads at once, at most.
        show_progress: whether a bar is drawn.
        file, device, threads, verify: as in `emb.load`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    truncate_dim: int | None = None
    batch_size: int = MAX_TEXTS
    show_progress: bool = False
    file: str | None = None
    device: str = "cpu"
    threads: int | None = None
    verify: bool = True
    _sides: Sides = PrivateAttr()

    def __init__(self, model: str | Path, **options: Any) -> None:
        """Open the model in the folder `model`.

        Raises:
            ArtifactError: not a model folder or a bundle, or changed since it was written.
            MissingExtra: torch, or the runtime of `file`, is needed and not installed.
            UsageError: no such device here, or a file named of a bundle.
        """
        super().__init__(model=str(model), **options)
        self._sides = Sides(Place(self.model, self.file, self.device, self.threads, self.verify))
        self._sides.open()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._sides.query(text, **self._how())

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each document."""
        return self._sides.documents(texts, show_progress_bar=self.show_progress, **self._how())

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, while the event loop goes on."""
        return await self._sides.query_async(text, **self._how())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, while the event loop goes on."""
        return await self._sides.documents_async(texts, show_progress_bar=self.show_progress, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"truncate_dim": self.truncate_dim, "batch_size": self.batch_size}
