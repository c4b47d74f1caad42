"""Small runs for documents, as the tests of query encoders make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import emb
from emb.distill.query_encoder import with_query_defaults
from emb.recipes.recipe import Recipe, load_recipe

FEW = {"training.max_steps": 4}


def distil(place: Path, out: Path, **more: Any) -> Any:
    """A run of a few steps for the documents in `place`."""
    overrides = FEW | more.pop("overrides", {})
    return emb.distill(str(place / "teacher"), documents=[place / "docs.jsonl"], out=out, overrides=overrides, **more)


def query_recipe(**values: Any) -> Recipe:
    """A recipe for documents with what it leaves open filled in, of a teacher of twelve layers."""
    return with_query_defaults(load_recipe(None, {"teacher": "t", "data.documents": ["d"], **values}), 12)
