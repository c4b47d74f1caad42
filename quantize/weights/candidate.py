"""One scheme carried out, and what its file is like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from emb.artifact.lineage import Candidate
from emb.errors import ArtifactError
from emb.quantize.weights.judge import Trial, if_same, runner, settings
from emb.quantize.weights.schemes import Scheme
from emb.quantize.weights.surgery import graph_bytes, save_graph
from emb.similarity import Vectors, cosines
from emb.tokens import Batch

# Smallest cosine of any text's vectors alone and in a batch: an index must not depend on who was encoded beside whom.
# `emb validate` lets pass 0.999, on ten times as many texts: where a rounding flips is chance, and the more texts, the
# further the worst.
ALONE = 0.9995


def try_scheme(scheme: Scheme, graph: Path, fused: Path, out: Path, trial: Trial, min_cosine: float) -> Candidate:
    """Write `graph` to `out` by one scheme; return what came of it, `passed` by the same gate as in `select_int8`,
    untimed.
    """
    return measured(scheme, if_same(graph, fused, trial), out, trial, settings(runner(graph, trial), trial), min_cosine)


def measured(
    scheme: Scheme, source: Path, path: Path, trial: Trial, reference: Sequence[Vectors], min_cosine: float
) -> Candidate:
    """Write the float graph `source` to `path` by `scheme` and hold it against `reference` vectors of each setting."""
    found = Candidate(scheme.name, scheme.what)
    write_scheme(scheme, source, path, trial.calibration)
    found.bytes = graph_bytes(path)
    try:
        alone, *batched = settings(runner(path, trial), trial)
    except ArtifactError as error:
        found.reason = error.message
        return found
    each = np.concatenate([cosines(*pair) for pair in zip(reference, [alone, *batched], strict=True)])
    found.mean_cosine, found.min_cosine = float(each.mean()), float(each.min())
    found.alone_cosine = min(float(cosines(alone, vectors).min()) for vectors in batched)
    found.reason = _failure(found, min_cosine)
    found.passed = not found.reason
    return found


def write_scheme(scheme: Scheme, source: Path, path: Path, calibration: Sequence[Batch]) -> Path:
    """Write the float graph `source` to `path` as `scheme` makes it; return `path`."""
    model = onnx.load(str(source))
    scheme.build(model, calibration)
    save_graph(model, path)
    return path


def _failure(found: Candidate, min_cosine: float) -> str:
    assert found.min_cosine is not None
    assert found.alone_cosine is not None
    if found.min_cosine < min_cosine:
        return f"min cosine {found.min_cosine:.4f} below {min_cosine}"
    return (
        f"alone and in a batch, min cosine {found.alone_cosine:.4f} below {ALONE}" if found.alone_cosine < ALONE else ""
    )
