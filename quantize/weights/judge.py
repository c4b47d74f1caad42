"""What quantised graphs are held to: the same texts, alone and in batches, padded on either side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emb.progress import warn
from emb.quantize.weights.saturation import EIGHT_BITS
from emb.runtime.sessions import Runner
from emb.similarity import Vectors, cosines
from emb.tokens import Batch, Rows, TextTokenizer, token_budget_batches

BUDGET = 512  # tokens per mixed batch
_FUSED = 0.99999  # smallest cosine between a graph and its fused form


@dataclass
class Trial:
    """What schemes are held to.

    Attributes:
        rows: token ids of the texts to compare and time, those to time first.
        calibration: padded batches to calibrate on.
        threads: of onnxruntime; None means one per core.
        largest: the largest int8 weight.
        limit: bytes that an 8-bit file may have.
        hard: those of `rows` made from the model itself, which are never left out where a part stands for all.
    """

    tokenizer: TextTokenizer
    rows: Rows
    calibration: list[Batch] = field(default_factory=list)
    threads: int | None = None
    largest: int = EIGHT_BITS
    limit: int | None = None
    hard: Rows = ()

    def some(self) -> Rows:
        """Every eighth row, and every hard one."""
        return [*self.rows[::8], *self.hard]


def smallest_cosine(reference: Path, graph: Path, trial: Trial) -> float:
    """Smallest cosine of any text, alone or in mixed batches padded on either side, between two graphs; -1 if one gives
    no numbers.

    Raises:
        ArtifactError: onnxruntime cannot open one.
    """
    expected, found = (settings(runner(path, trial), trial) for path in (reference, graph))
    each = np.concatenate([cosines(*pair) for pair in zip(expected, found, strict=True)])
    return float(np.nan_to_num(each, nan=-1.0).min())


def if_same(graph: Path, fused: Path, trial: Trial) -> Path:
    """`fused` if it gives the vectors of `graph` on an eighth of the texts and the hard ones: the optimiser goes by
    patterns, and knows BERT's.
    """
    few = dataclasses.replace(trial, rows=trial.some())
    if fused == graph or smallest_cosine(graph, fused, few) >= _FUSED:
        return fused
    warn("int8: fusing operators changed the vectors; quantising the graph as it was traced")
    return graph


def run_file(path: Path, trial: Trial, rows: Rows) -> Vectors:
    """What the graph at `path` returns for token `rows`, in their order: `(texts, dim)`."""
    return runner(path, trial)(rows)


def runner(path: Path, trial: Trial) -> Callable[..., Vectors]:
    """The graph at `path` as a function of token rows, `(texts, dim)` in their order; it takes a budget of tokens per
    batch and a side to pad.
    """
    opened = Runner(path, trial.threads)

    def run(rows: Rows, budget: int = BUDGET, side: str = "right") -> Vectors:
        batches = token_budget_batches([len(row) for row in rows], budget)
        parts = list(opened.run_each([partial(_padded, trial, rows, batch, side) for batch in batches]))
        return np.asarray(np.concatenate(parts)[np.argsort(np.concatenate(batches))])

    return run


def _padded(trial: Trial, rows: Rows, batch: Any, side: str) -> Batch:
    return trial.tokenizer.pad([rows[index] for index in batch], side)


def settings(run: Callable[..., Vectors], trial: Trial) -> list[Vectors]:
    """Vectors of the trial's texts: each alone, in mixed batches padded left, and as they come, padded right."""
    # Sorted batches hold texts of like length; the whole in one order holds very unlike ones.
    unsorted = np.concatenate([run(trial.rows[start : start + 8], 10**9) for start in range(0, len(trial.rows), 8)])
    return [run(trial.rows, 1), run(trial.rows, BUDGET, "left"), unsorted]
