"""Running an ONNX file every way a client may, and comparing it with the torch model it came from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.data.probes import Sample
from emb.similarity import Vectors, compare, cosines
from emb.tokens import prompt_of

if TYPE_CHECKING:
    from emb.runtime.encoder import Encoder

KINDS = ("query", "document")
_MIXED = 8  # texts of any length in one batch: short ones are mostly padding
_WARM_UP = 3


@dataclass
class Runs:
    """One file's vectors `(samples, dim)` under each setting, and the seconds of each batch-1 call."""

    vectors: dict[str, Vectors] = field(default_factory=dict)
    seconds: Vectors = field(default_factory=lambda: np.zeros(0))


def reference_vectors(model: Any, samples: Sequence[Sample]) -> Vectors:
    """Vectors `(samples, dim)` as sentence-transformers itself gives them, `model` being the folder loaded by it.

    Not this package's own loader: an error that slicing, export and loader share would not show.
    """
    return by_kind(
        samples,
        lambda texts, kind: np.asarray(
            model.encode(list(texts), prompt=prompt_of(model.prompts, kind), batch_size=8, show_progress_bar=False)
        ),
    )


def by_kind(samples: Sequence[Sample], encode: Callable[[Sequence[str], str], Vectors]) -> Vectors:
    """Encode queries and documents apart and put the vectors `(samples, dim)` back in order."""
    found: Vectors | None = None
    for kind in KINDS:
        places = [index for index, sample in enumerate(samples) if sample.kind == kind]
        if places:
            part = encode([samples[index].text for index in places], kind)
            found = np.empty((len(samples), part.shape[1]), part.dtype) if found is None else found
            found[places] = part
    assert found is not None  # samples are never empty
    return found


def run_settings(encoder: Encoder, samples: Sequence[Sample], advance: Callable[[int], Any]) -> Runs:
    """Encode `samples` as a client does, one by one, and in mixed batches padded on either side."""
    runs = Runs()
    runs.vectors["as a client"] = by_kind(samples, lambda texts, kind: _unchecked(encoder, texts, kind))
    advance(len(samples))
    runs.vectors["batch 1"], runs.seconds = _one_by_one(encoder, samples)
    advance(len(samples))
    for side in ("right", "left"):
        runs.vectors[f"mixed, {side} padding"] = _mixed(encoder, samples, side)
        advance(len(samples))
    return runs


def _unchecked(encoder: Encoder, texts: Sequence[str], kind: str) -> Vectors:
    # `encode` refuses vectors that are not finite; here a gate judges them.
    return encoder.encode_ids(encoder.tokenizer.encode(texts, prompt_of(encoder.prompts, kind)))


def _one_by_one(encoder: Encoder, samples: Sequence[Sample]) -> tuple[Vectors, Vectors]:
    for sample in samples[:_WARM_UP]:
        _unchecked(encoder, [sample.text], sample.kind)
    vectors, seconds = [], []
    for sample in samples:
        start = time.perf_counter()
        vectors.append(_unchecked(encoder, [sample.text], sample.kind))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(vectors), np.asarray(seconds)


def _mixed(encoder: Encoder, samples: Sequence[Sample], side: str) -> Vectors:
    rows = encoder.tokenizer.encode(
        [sample.text for sample in samples], [prompt_of(encoder.prompts, sample.kind) for sample in samples]
    )
    order = np.random.default_rng(0).permutation(len(rows))
    batches = [order[start : start + _MIXED] for start in range(0, len(order), _MIXED)]
    parts = [encoder.run(*encoder.tokenizer.pad([rows[index] for index in batch], side)) for batch in batches]
    vectors = np.concatenate(parts)
    found = np.empty_like(vectors)
    found[order] = vectors
    return found


def throughput(encode: Callable[[Sequence[str]], Any], texts: Sequence[str], tokens: int) -> dict[str, float]:
    """Texts and tokens per second of encoding `texts` at once: the best of runs that last a second together, at most
    five.
    """
    seconds: list[float] = []
    while len(seconds) < 5 and sum(seconds) < 1:
        start = time.perf_counter()
        encode(texts)
        seconds.append(time.perf_counter() - start)
    return {"texts_per_second": len(texts) / min(seconds), "tokens_per_second": tokens / min(seconds)}


def figures(reference: Vectors, candidate: Vectors, ordinary: Sequence[int] | None = None) -> dict[str, float | None]:
    """`compare` as a plain dict, the geometry over the rows `ordinary`; a figure that is not finite becomes None, which
    JSON can hold.

    Odd texts come twice and many are alike: their order as neighbours says nothing.
    """
    found = compare(reference, candidate).as_dict()
    if ordinary is not None:
        geometry = compare(reference[ordinary], candidate[ordinary])
        found |= {"spearman": geometry.spearman, "overlap_at_10": geometry.overlap_at_10}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def length_error(reference: Vectors, candidate: Vectors) -> float:
    """Largest relative difference between the lengths of a candidate's vector and its reference's.

    Cosines do not see a missing normalisation; this does.
    """
    expected, found = (np.linalg.norm(np.asarray(vectors, np.float64), axis=1) for vectors in (reference, candidate))
    return float(np.nan_to_num(np.abs(found - expected) / np.maximum(expected, 1e-12), nan=np.inf, posinf=np.inf).max())


def invariance(runs: Runs) -> float:
    """Smallest cosine of any text's vector between batch 1 and the other settings."""
    alone = runs.vectors["batch 1"]
    return min(float(cosines(alone, vectors).min()) for vectors in runs.vectors.values())
