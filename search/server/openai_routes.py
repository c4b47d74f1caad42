"""OpenAI's API: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from emb.search.server.answers import openai_list
from emb.search.server.documented import (
    Dimensions,
    OpenAIEmbeddings,
    OpenAIRefused,
    Text,
    Texts,
    TokenLists,
    Tokens,
    answers,
)
from emb.search.server.problems import UNKNOWN_MODEL, Problem
from emb.search.server.service import Service

# What other servers call the two kinds: NVIDIA's, Voyage's and Cohere's.
_KIND_OF = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
}
_FEW = 16  # texts whose answer is written sooner than another thread wakes up


class EmbeddingsRequest(BaseModel):
    """What `/v1/embeddings` takes; null is as if the field were not there, since LiteLLM sends it."""

    model_config = ConfigDict(strict=True)

    input: Text | Texts | Tokens | TokenLists = Field(
        description="One text or several, or their token ids by the model's own tokenizer, special tokens included."
    )
    model: str | None = Field(None, description="The model's name or an alias of it.")
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Dimensions | None = Field(None, description="Dimensions to keep; the vector is normalised again.")
    input_type: Literal["query", "document", "passage", "search_query", "search_document"] | None = Field(
        None, description="Which prompt texts get; an addition to OpenAI's API."
    )
    user: str | None = None


def openai_routes(service: Service) -> APIRouter:
    """The routes of `service`."""
    router, started = APIRouter(prefix="/v1", tags=["OpenAI"]), int(time.time())
    name = str(service.settings.served_model_name)
    card = {"id": name, "object": "model", "created": started, "owned_by": "emb"}

    @router.post("/embeddings", responses=answers(OpenAIRefused, 400, 404, 413, 500, found=OpenAIEmbeddings))
    async def embeddings(asked: EmbeddingsRequest, request: Request) -> Response:
        """Vectors of texts."""
        _require_model(service, asked.model)
        prompt = service.prompt(_KIND_OF.get(asked.input_type or ""), "input_type")
        service.check_dimensions(asked.dimensions)
        found = await service.embed(request, asked.input, prompt, param="input")
        vectors = service.cut(found.vectors, asked.dimensions, normalize=service.encoder.normalize)
        given = vectors, asked.encoding_format or "float", asked.model or name, found.tokens
        body = openai_list(*given) if len(vectors) <= _FEW else await service.aside(openai_list, *given)
        return Response(body, media_type="application/json")

    @router.get("/models", responses=answers(OpenAIRefused))
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [card]}

    @router.get("/models/{model:path}", responses=answers(OpenAIRefused, 404))
    async def model(model: str) -> dict[str, Any]:
        """The model that is served, by its name or an alias."""
        _require_model(service, model)
        return card

    return router


def _require_model(service: Service, model: str | None) -> None:
    if model is not None and not service.settings.named(model):
        said = f"The model {model!r} does not exist; this server has {service.settings.served_model_name!r}"
        raise Problem(UNKNOWN_MODEL, said, "model")
