"""The application: every route behind one gate, on one queue."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import emb
from emb.errors import EmbError
from emb.runtime.encoder import Encoder
from emb.search.server.gate import OPEN, Gate
from emb.search.server.openai_routes import openai_routes
from emb.search.server.problems import failed_answer, invalid_answer, problem_answer, unreadable_answer
from emb.search.server.service import Service
from emb.search.server.settings import Settings
from emb.search.server.tei_routes import tei_routes


def create_app(
    encoder: Encoder,
    settings: Settings | None = None,
    routers: Sequence[APIRouter] = (),
    *,
    key: bytes | None = None,
    about: dict[str, Any] | None = None,
    free: Collection[str] = (),
    local: bool = False,
) -> FastAPI:
    """An application that serves `encoder`.

    Args:
        routers: further routes, behind the same gate; `request.app.state.service` is the `Service` of this one.
        key: what clients must send as a bearer token; None asks for none.
        about: what `/info` says of the model beyond what the encoder knows: its dtype, its pooling.
        free: further paths that need no key, as `/health` does not.
        local: whether what a browser asks by another name than this machine's own is refused.

    Raises:
        UsageError: the encoder's vectors are no floats.
    """
    settings = settings or Settings()
    if settings.served_model_name is None:
        settings = dataclasses.replace(settings, served_model_name="emb")
    service = Service(encoder, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # The pages that show a schema load their scripts from elsewhere: the schema itself is what is served. A redirect
    # would go where the request's own Host header points, without TLS.
    app = FastAPI(
        title="emb", version=emb.__version__, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    for router in (openai_routes(service), tei_routes(service, info(service, about or {})), *routers):
        app.include_router(router)
    app.add_exception_handler(HTTPException, problem_answer)
    app.add_exception_handler(RequestValidationError, invalid_answer)
    app.add_exception_handler(EmbError, unreadable_answer)
    app.add_exception_handler(Exception, failed_answer)
    app.add_middleware(
        Gate,
        settings=settings,
        key=key,
        traffic=service.traffic,
        failed=service.failed,
        free={*OPEN, *free},
        local=local,
    )
    return app


def info(service: Service, about: dict[str, Any]) -> dict[str, Any]:
    """What `/info` says, under the names of text-embeddings-inference."""
    settings = service.settings
    return {
        "model_id": settings.served_model_name,
        "served_model_name": settings.served_model_name,
        "model_sha": None,
        "model_dtype": about.get("dtype", "float32"),
        "model_type": {"embedding": {"pooling": about.get("pooling", "mean")}},
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": service.encoder.max_length,
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": settings.max_batch_requests,
        "max_client_batch_size": settings.max_client_batch_size,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": 1,
        "version": emb.__version__,
        "sha": None,
        "docker_label": None,
    }
