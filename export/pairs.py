"""Which (layers, dim) pairs of a model can be exported."""

from __future__ import annotations

from collections.abc import Sequence

from emb.artifact.manifest import Kind, LayerDimPair, Manifest
from emb.errors import UsageError
from emb.model.embedding_model import EmbeddingModel
from emb.progress import warn


def resolve_pairs(
    model: EmbeddingModel, manifest: Manifest | None, layers: Sequence[int], dims: Sequence[int]
) -> list[LayerDimPair]:
    """Every combination of `layers` and `dims`; none given means the whole model.

    Raises:
        UsageError: beyond the model, or layers at which a student has no trained exit.
    """
    pairs = [
        LayerDimPair(n, dim)
        for n in sorted(set(layers or [model.exits[-1]]))
        for dim in sorted(set(dims or [model.dim]))
    ]
    for pair in pairs:
        _check(model, manifest, pair)
    return pairs


def _check(model: EmbeddingModel, manifest: Manifest | None, pair: LayerDimPair) -> None:
    if not 1 <= pair.dim <= model.dim:
        raise UsageError(f"dim {pair.dim}: the model has {model.dim} dims", f"choose 1 to {model.dim}")
    if not min(1, model.layers) <= pair.layers <= model.layers:
        raise UsageError(f"layers {pair.layers}: the model has {model.layers}", f"choose from {_names(model)}")
    if manifest is None or manifest.kind != Kind.STUDENT:
        if pair.layers not in model.exits:
            warn(
                f"{pair}: nothing was trained after layer {pair.layers}; distil a student with this exit to heal"
                " the cut"
            )
        return
    if pair.layers not in model.exits:
        raise UsageError(
            f"layers {pair.layers}: not trained as an exit",
            f"trained: {_names(model)}; others need a pair in the recipe and a new run",
        )
    trained = max((each.dim for each in manifest.pairs if each.layers == pair.layers), default=model.dim)
    if pair.dim > trained:
        warn(f"{pair}: the exit at {pair.layers} layers was trained up to {trained} dims")


def _names(model: EmbeddingModel) -> str:
    return ", ".join(map(str, model.exits)) if len(model.exits) > 1 or not model.layers else f"1 to {model.layers}"
