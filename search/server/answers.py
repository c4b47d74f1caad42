"""Vectors as the bytes of an answer."""

from __future__ import annotations

import base64
import json

import numpy as np

from emb.similarity import Vectors


def as_base64(vector: Vectors) -> str:
    """A vector `(dim,)` as OpenAI's clients ask for it: float32, little-endian."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")


def numbers(vectors: Vectors) -> bytes:
    """Vectors `(texts, dim)` as JSON, a list of numbers each."""
    return b"[" + b",".join(_list(vector) for vector in vectors) + b"]"


def openai_list(vectors: Vectors, encoding: str, model: str, tokens: int) -> bytes:
    """OpenAI's answer: an object for each of the `vectors` `(texts, dim)`, "float" or "base64", and what was used."""
    # Vector by vector: one call for all would not let go of the interpreter before its end.
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%s}'
        % (index, _list(vector) if encoding == "float" else f'"{as_base64(vector)}"'.encode())
        for index, vector in enumerate(vectors)
    )
    usage = json.dumps({"prompt_tokens": tokens, "total_tokens": tokens}).encode()
    return b'{"object":"list","data":[%s],"model":%s,"usage":%s}' % (data, json.dumps(model).encode(), usage)


def _list(vector: Vectors) -> bytes:
    return json.dumps(vector.tolist(), separators=(",", ":"), allow_nan=False).encode()
