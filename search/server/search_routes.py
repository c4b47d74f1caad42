"""`/search`: documents of an index, found by the encoder that is served."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from emb.errors import UsageError
from emb.runtime.encoder import Encoder
from emb.search.index.opening import opened
from emb.search.index.reader import Index
from emb.search.server.problems import INVALID, Problem
from emb.search.server.service import Service

_MOST = 1000  # documents of one answer


class SearchRequest(BaseModel):
    """What `/search` takes."""

    model_config = ConfigDict(strict=True)

    query: str = Field(description="What is searched for.")
    k: int = Field(10, ge=1, le=_MOST, description="Documents to find.")
    where: dict[str, str | list[str]] | None = Field(
        None, description="Only documents with these values of metadata; of several under a name, any."
    )


def open_for(folder: Path, encoder: Encoder, model: Path) -> Index:
    """The index in `folder`, to be searched by `encoder`, which was opened from the folder `model`.

    Raises:
        ArtifactError: no index, or one of another vector space.
    """
    return opened(folder, encoder, model=model)


def search_routes(index: Index) -> APIRouter:
    """The route that searches `index`, beside those of the service in front of it."""
    router = APIRouter(tags=["search"])

    @router.post("/search")
    async def search(asked: SearchRequest, request: Request) -> dict[str, Any]:
        """The documents nearest to a query, the best first."""
        service: Service = request.app.state.service
        if not asked.query.strip():
            raise Problem(INVALID, "query is empty", "query")
        found = await service.embed(request, asked.query, service.prompt("query", "query"), param="query")
        began = time.perf_counter()
        look = partial(index.search_vector, found.vectors[0], asked.k, where=asked.where)
        try:
            hits = await service.aside(look)
        except UsageError as error:
            raise Problem(INVALID, error.message, "where") from error
        took = {"encode": found.total, "search": time.perf_counter() - began}
        return {"hits": [dataclasses.asdict(hit) for hit in hits], "seconds": took}

    return router
