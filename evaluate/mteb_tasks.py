"""mteb's own tasks: found by name, their data fetched, and run on the vectors of a model's outputs."""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.errors import DataError, UsageError, first_line, needs_extra
from emb.evaluate.encoding import encoded
from emb.evaluate.mteb_files import fill
from emb.evaluate.mteb_models import EncoderModel, Facts, SearchModel
from emb.evaluate.scores import Output
from emb.evaluate.subjects import Subject
from emb.similarity import Vectors, truncated
from emb.teachers.registry import OF_THE_CLIENT

_CLIENT = OF_THE_CLIENT | {"datasets", "requests", "urllib3"}
METRICS = {"ndcg_at_10": "nDCG@10", "cosine_spearman": "Spearman", "accuracy": "accuracy", "f1": "F1", "ap": "AP"}


@dataclass(frozen=True)
class MtebTask:
    """A task of mteb; `revision` is the fingerprint of its data where those are ours."""

    task: Any
    revision: str | None = None

    @property
    def name(self) -> str:
        """By which mteb knows it."""
        return str(self.task.metadata.name)

    @property
    def metric(self) -> str:
        """Its main one, in our words where we have some."""
        name = str(self.task.metadata.main_score)
        return METRICS.get(name, name)

    @property
    def run_task(
    given: MtebTask, queries: Vectorised, documents: Vectorised | None, point: Output, dim: int, facts: Facts
) -> Any:
    """mteb's `TaskResult` of one output at one dim, with `documents` by another model where there is one."""
    import mteb

    def encode(texts: Sequence[str], kind: str) -> Vectors:
        if documents is not None and kind == "document":
            return documents.vectors(texts, kind, documents.first(), dim)
        return queries.vectors(texts, kind, point, dim)

    model = SearchModel(encode, facts) if documents is not None else EncoderModel(encode, facts)
    options = {"batch_size": 1024, "show_progress_bar": False}  # of the loader of texts; a model has batches of its own
    found = mteb.evaluate(
        model, given.task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs=options
    )
    [result] = found.task_results
    return result.model_copy(update={"dataset_revision": given.fingerprint})
