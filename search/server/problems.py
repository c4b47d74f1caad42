"""What can be wrong with a request, in the words of the API that it came by.

The kinds, statuses and names of text-embeddings-inference are those of its router (router/src/http/server.rs); OpenAI's
are those of its API reference.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from emb.errors import EmbError

OPENAI = "/v1/"  # paths below it answer as OpenAI does
_INPUT = "a string, a list of strings, a list of token ids, or a list of such lists"
_WHERE = "an object of at most 100 names of metadata, each with a string or a list of strings"
_NO_JSON = "the body is not JSON that can be read"
_EXPECTED = {"input": _INPUT, "inputs": "a string or a list of strings", "where": _WHERE}


@dataclass(frozen=True)
class Kind:
    """One sort of problem: its status and name with text-embeddings-inference, and its status, type and code with
    OpenAI.
    """

    status: int
    error_type: str
    openai_status: int
    type: str = "invalid_request_error"
    code: str | None = None


INVALID = Kind(422, "Validation", 400)
EMPTY = Kind(400, "Empty", 400)
UNREADABLE = Kind(422, "Tokenizer", 400)
TOO_LARGE = Kind(413, "Validation", 413)
PACKED = Kind(415, "Validation", 415)
UNKNOWN_MODEL = Kind(404, "Validation", 404, code="model_not_found")
NO_KEY = Kind(401, "Unauthorized", 401, code="invalid_api_key")
FOREIGN = Kind(403, "Unauthorized", 403, code="invalid_host")
OVERLOADED = Kind(429, "Overloaded", 429, "rate_limit_error", "rate_limit_exceeded")
BACKEND = Kind(424, "Backend", 500, "server_error")
TIMEOUT = Kind(504, "Backend", 504, "server_error", "timeout")
STOPPING = Kind(503, "Unhealthy", 503, "server_error")


class Problem(HTTPException):
    """A request that gets no vectors, and why.

    It is starlette's exception, because FastAPI takes any other for a body that it cannot parse.
    """

    def __init__(
        self, kind: Kind, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(kind.status, message, headers)
        self.kind, self.message, self.param = kind, message, param


def answer(path: str, problem: Problem) -> JSONResponse:
    """The response to a request for `path`."""
    kind, message = problem.kind, problem.message.encode(errors="replace").decode()  # may repeat what was sent
    headers = dict(problem.headers or {}) | ({"Retry-After": "1"} if kind is OVERLOADED else {})
    if not path.startswith(OPENAI):
        return JSONResponse({"error": message, "error_type": kind.error_type}, kind.status, headers)
    body = {"message": message, "type": kind.type, "param": problem.param, "code": kind.code}
    return JSONResponse({"error": body}, kind.openai_status, headers)


def problem_answer(request: Request, error: Exception) -> JSONResponse:
    """Answer a `Problem`, or what starlette itself refuses: a path or a method that is not there, an unreadable
    body.
    """
    if isinstance(error, Problem):
        return _told(request, error)
    assert isinstance(error, HTTPException)
    if error.status_code == INVALID.openai_status:  # FastAPI, of a body that is too deep or holds a number too large
        return _told(request, Problem(INVALID, _NO_JSON))
    kind = Kind(error.status_code, "Validation", error.status_code)
    return _told(request, Problem(kind, str(error.detail), headers=error.headers))  # a 405 names what is allowed


def invalid_answer(request: Request, error: Exception) -> JSONResponse:
    """Answer a body that is not what the route takes; what it held is not repeated."""
    assert isinstance(error, RequestValidationError)
    return _told(request, _problem_of(error.errors()))


def unreadable_answer(request: Request, error: Exception) -> JSONResponse:
    """Answer where what is served was damaged or removed meanwhile; the server's log says what and how to mend it."""
    assert isinstance(error, EmbError)
    logging.getLogger("uvicorn.error").error("%s: %s", request.url.path, error.told)
    return _told(request, Problem(BACKEND, "what this server reads was changed or damaged: its log says how"))


def failed_answer(request: Request, error: Exception) -> JSONResponse:
    """Answer where this program failed; the server's log has the traceback, the client gets none of it."""
    return _told(request, Problem(BACKEND, f"internal error: {type(error).__name__}"))


def _told(request: Request, problem: Problem) -> JSONResponse:
    request.app.state.service.failed(problem)
    return answer(request.url.path, problem)


def _problem_of(errors: Sequence[Mapping[str, Any]]) -> Problem:
    place = [str(part) for part in errors[0]["loc"][1:]]
    name = place[0] if place else None
    if any(error["type"] == "string_unicode" for error in errors):
        return Problem(UNREADABLE, f"{name}: a text is no valid Unicode: it holds half of a surrogate pair", name)
    if errors[0]["type"] == "json_invalid":
        return Problem(INVALID, _NO_JSON)
    if name is None:
        return Problem(INVALID, "the body must be a JSON object, sent as application/json")
    if errors[0]["type"] == "missing":
        return Problem(INVALID, f"{name} is missing", name)
    wanted = f"must be {_EXPECTED[name]}" if name in _EXPECTED else str(errors[0]["msg"])
    return Problem(INVALID, f"{name}: {wanted}", name)
