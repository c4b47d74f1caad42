"""What the schema says of answers: vectors, and what is wrong, in the shape of each API.

The bodies are written by hand (`answers.py`): these models describe them and check nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

# For the schema alone: an empty text is refused where its name is known, with the status that the API has for it.
Text = Annotated[str, Field(json_schema_extra={"minLength": 1})]
# One wrong item is enough: told of each, 2 MB of nulls hold the server up for a minute, and take a gigabyte.
Texts = Annotated[list[Text], Field(fail_fast=True, json_schema_extra={"minItems": 1})]
Tokens = Annotated[list[int], Field(fail_fast=True, json_schema_extra={"minItems": 1})]
Dimensions = Annotated[int, Field(json_schema_extra={"minimum": 1})]
TokenLists = Annotated[list[Tokens], Field(fail_fast=True, json_schema_extra={"minItems": 1})]


class Refused(BaseModel):
    """An error as text-embeddings-inference tells it."""

    error: str
    error_type: str


class OpenAIProblem(BaseModel):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIRefused(BaseModel):
    """An error as OpenAI tells it."""

    error: OpenAIProblem


class OpenAIEmbedding(BaseModel):
    """The vector of one text: numbers, or the base64 of float32 numbers, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class OpenAIUsage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddings(BaseModel):
    """Vectors as OpenAI gives them."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


def answers(refused: type[BaseModel], *statuses: int, found: Any = None) -> dict[int | str, dict[str, Any]]:
    """A route's answers: `found`, a `refused` at each of the statuses, and so whatever else is wrong."""
    wrong: dict[int | str, dict[str, Any]] = {status: {"model": refused} for status in (401, *statuses, 429, 503, 504)}
    right: dict[int | str, dict[str, Any]] = {} if found is None else {200: {"model": found}}
    return right | wrong | {"default": {"model": refused, "description": "What is otherwise wrong"}}
