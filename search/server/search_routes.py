"""`/search`: documents of an index, found by the encoder that is served, or by another one that is offered."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from emb.errors import UsageError, in_python
from emb.runtime.encoder import Encoder
from emb.search.calibration.fallback import Fallback
from emb.search.index.hits import Hit
from emb.search.index.opening import opened
from emb.search.index.queries import beginning, knows
from emb.search.index.reader import Index
from emb.search.server.documented import Refused, answers
from emb.search.server.offers import TEACHER, Offer
from emb.search.server.problems import INVALID, Problem
from emb.search.server.reading import check_text
from emb.search.server.service import Service
from emb.similarity import Vectors

_MOST, _FOUND = 1000, 10  # documents of one answer, at most and where a request does not say
_NAMES = 100  # of metadata in one request
Values = Annotated[list[str], Field(fail_fast=True)]
Looked = tuple[Vectors, list[Hit], dict[str, float]]  # a query's vector, what is found, and the seconds of both steps


def _few(where: object) -> object:
    # Else every one of 150,000 wrong values would be told of, which takes the server a minute.
    if isinstance(where, dict) and len(where) > _NAMES:
        raise ValueError
    return where


class SearchRequest(BaseModel):
    """What `/search` takes."""

    model_config = ConfigDict(strict=True)

    query: str = Field(description="What is searched for.", json_schema_extra={"pattern": r"\S"})
    k: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(_FOUND, description="Documents to find.")
    where: Annotated[dict[str, str | Values], BeforeValidator(_few)] | None = Field(
        None, description="Only documents with these values of metadata; of several under a name, any."
    )
    encoder: str | None = Field(
        None, description="Who encodes the query: a name that /search/encoders lists. Default: the encoder served."
    )
    dim: int | None = Field(
        None,
        description="Dimensions to search in, of those listed for the encoder. Both sides are cut and normalised again."
        " Default: the most.",
    )
    characters: int | None = Field(None, ge=0, description="Of each passage at most so many characters are sent.")


class Seconds(BaseModel):
    """Seconds that an answer took: tokens, queue and encoder together, then the index."""

    encode: float
    search: float


class SearchAnswer(BaseModel):
    """What `/search` gives."""

    hits: list[Hit]
    seconds: Seconds
    encoder: str
    dim: int


class OfferedEncoder(BaseModel):
    """An encoder that `/search` may be asked for."""

    name: str
    side: Literal["query", "teacher"] = Field(description="The teacher encoded the documents.")
    layers: int | None = Field(description="Null where nothing tells.")
    precision: str = Field(description="Of its weights.")
    dims: list[int] = Field(description="That it may be searched in, the most first.")


class Offered(BaseModel):
    """What there is to search, and to search with."""

    documents: int
    encoders: list[OfferedEncoder] = Field(description="The one that answers unless another is named comes first.")


def open_for(folder: Path, encoder: Encoder, model: Path) -> Index:
    """The index in `folder`, to be searched by `encoder`, which was opened from the folder `model`.

    Raises:
        ArtifactError: no index, or one of another vector space.
    """
    return opened(folder, encoder, model=model)


def search_routes(index: Index, offers: Sequence[Offer], fallback: Fallback | None = None) -> APIRouter:
    """The routes that search `index`, beside those of the service in front of it; with a `fallback`, the teacher among
    the `offers` reads the queries that the first of them is unsure of, where a request names neither encoder nor dim.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        for offer in offers:
            if offer.service:
                offer.service.close()

    router = APIRouter(tags=["search"], lifespan=lifespan)

    @router.post("/search", responses=answers(Refused, 413, 422, 424, found=SearchAnswer))
    async def search(asked: SearchRequest, request: Request) -> Any:
        """The documents nearest to a query, the best first."""
        served: Service = request.app.state.service
        if not asked.query.strip():
            raise Problem(INVALID, "query is empty", "query")
        check_text(asked.query, "query", "query")
        read = beginning(asked.query.strip(), served.encoder.tokenizer)
        if not await served.aside(knows, served.encoder.tokenizer, read):
            raise Problem(INVALID, "query: the encoder knows no token of it", "query")
        offer = _offer(offers, asked.encoder)
        dim = _dim(offer, asked.dim)
        vector, hits, took = await look(served, offer, dim, asked, request)
        if fallback and asked.encoder is None and asked.dim is None:
            unsure = partial(fallback.unsure, index, vector, hits, asked.k or _FOUND, asked.where)
            if await served.aside(unsure):
                offer = next(each for each in offers if each.side == TEACHER)
                _, hits, again = await look(served, offer, dim, asked, request)
                took = {step: seconds + again[step] for step, seconds in took.items()}
        shown = [_shown(hit, asked.characters) for hit in hits]
        return {"hits": shown, "seconds": took, "encoder": offer.name, "dim": dim}

    async def look(served: Service, offer: Offer, dim: int, asked: SearchRequest, request: Request) -> Looked:
        service = offer.service or served
        text = beginning(asked.query.strip(), service.encoder.tokenizer)
        found = await service.embed(request, text, service.prompt("query", "query"), param="query")
        began = time.perf_counter()
        search = partial(index.search_vector, found.vectors[0], asked.k or _FOUND, where=asked.where, dim=dim)
        try:
            hits = await served.aside(search)
        except UsageError as error:
            raise Problem(INVALID, in_python(error.message), "where") from error
        return found.vectors[0], hits, {"encode": found.total, "search": time.perf_counter() - began}

    @router.get("/search/encoders", responses=answers(Refused, found=Offered))
    async def encoders(request: Request) -> Any:
        """Who may encode a query, and in how many dims its vectors may be searched."""
        service: Service = request.app.state.service
        names = ("name", "side", "layers", "precision", "dims")
        listed = [{name: getattr(offer, name) for name in names} for offer in offers]
        return {"documents": await service.aside(index.__len__), "encoders": listed}

    return router


def _offer(offers: Sequence[Offer], name: str | None) -> Offer:
    for offer in offers:
        if name in (None, offer.name):
            return offer
    known = ", ".join(each.name for each in offers)
    raise Problem(INVALID, f"encoder: there is no {name!r}; this server has {known}", "encoder")


def _dim(offer: Offer, dim: int | None) -> int:
    if dim in (None, *offer.dims):
        return dim or offer.dims[0]
    known = ", ".join(map(str, offer.dims))
    raise Problem(INVALID, f"dim: {offer.name} is not searched in {dim} dims; choose of {known}", "dim")


def _shown(hit: Hit, characters: int | None) -> dict[str, Any]:
    whole = hit.passage
    passage = whole if characters is None or len(whole) <= characters else f"{whole[:characters].rstrip()}…"
    return dataclasses.asdict(hit) | {"passage": passage}
