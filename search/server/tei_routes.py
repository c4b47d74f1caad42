"""The API of text-embeddings-inference: `/embed`, `/info`, `/health` and `/metrics`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from emb.search.server.answers import numbers
from emb.search.server.documented import Dimensions, Refused, Text, Texts, answers
from emb.search.server.problems import INVALID, STOPPING, Problem
from emb.search.server.service import Embedded, Service

_FEW = 16  # texts whose answer is written sooner than another thread wakes up


class EmbedRequest(BaseModel):
    """What `/embed` takes."""

    model_config = ConfigDict(strict=True)

    inputs: Text | Texts = Field(description="One text or several.")
    normalize: bool | None = Field(
        True, description="Scale vectors to length 1; false leaves them as the model gives them."
    )
    truncate: bool | None = Field(None, description="Cut texts that are too long, or refuse them.")
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = Field(
        None, description="Where texts are cut; only the model's own side is taken."
    )
    prompt_name: str | None = Field(None, description="Which prompt texts get.")
    dimensions: Dimensions | None = Field(None, description="Dimensions to keep.")


def tei_routes(service: Service, info: dict[str, Any]) -> APIRouter:
    """The routes of `service`; `info` is what `/info` says."""
    router = APIRouter(tags=["text-embeddings-inference"])

    @router.post("/embed", responses=answers(Refused, 400, 413, 422, 424, found=list[list[float]]))
    async def embed(asked: EmbedRequest, request: Request) -> Response:
        """Vectors of texts, a list of numbers each."""
        _require_side(service, asked.truncation_direction)
        service.check_dimensions(asked.dimensions)
        prompt = service.prompt(asked.prompt_name, "prompt_name")
        found = await service.embed(request, asked.inputs, prompt, param="inputs", truncate=asked.truncate)
        vectors = service.cut(found.vectors, asked.dimensions, normalize=asked.normalize is not False)
        body = numbers(vectors) if len(vectors) <= _FEW else await service.aside(numbers, vectors)
        return Response(body, media_type="application/json", headers=_spent(found))

    @router.get("/info", responses=answers(Refused))
    async def information() -> dict[str, Any]:
        """The model and the server's limits."""
        return info

    @router.get("/health", response_class=Response, responses={503: {"model": Refused}})
    async def health() -> Response:
        """200 with no body where vectors can be had, 503 where not."""
        if not service.batcher.healthy:
            raise Problem(STOPPING, "unhealthy")
        return Response()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def _require_side(service: Service, side: str | None) -> None:
    own = service.encoder.tokenizer.truncation_side
    if side is not None and side.lower() != own:
        raise Problem(INVALID, f"truncation_direction: this model's texts are cut on the {own}", "truncation_direction")


def _spent(found: Embedded) -> dict[str, str]:
    seconds = {"total": found.total, "queue": found.waited, "inference": found.computed}
    return {
        "x-compute-tokens": str(found.tokens),
        "x-compute-characters": str(found.characters),
        **{f"x-{name}-time": str(round(1000 * value)) for name, value in seconds.items()},
    }
