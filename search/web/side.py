"""The query encoder as the page runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TABLE, ONNX = "table", "onnx"  # as page/search.js and page/app.js have them


@dataclass(frozen=True)
class QuerySide:
    """What the page's scripts read of an encoder.

    Attributes:
        kind: `TABLE` for a static encoder, `ONNX` for one with layers.
        tokenizer: vocabulary and rules, of page/tokenizer.js; with layers also what its vectors are tried on.
        files: by the name that the scripts know each by, its name and content.
        beside: files that are copied as they are: scripts and a licence.
        facts: of page.json.
        dim: width of its vectors, after the cut.
        normalize: whether vectors get length 1.
        cosine: the least one between the page's vector of a text and the encoder's own; None where only a browser can
            tell.
    """

    kind: str
    tokenizer: dict[str, Any]
    files: dict[str, tuple[str, bytes]]
    dim: int
    normalize: bool
    cosine: float | None
    beside: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
