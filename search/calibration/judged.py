"""Queries and which documents are relevant to them: by people, or by the documents' model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emb.data.documents import read_documents
from emb.data.evaluation_sets import RetrievalTask, is_beir, read_tasks
from emb.data.pseudo_queries import pseudo_queries
from emb.errors import UsageError
from emb.similarity import Vectors, similarities


@dataclass(frozen=True)
class Asked:
    """Queries on documents. `relevant` holds rows of documents for each query, by people (`judged`), or the one that
    it was cut from.
    """

    name: str
    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[set[int]]
    judged: bool


def read_asked(data: Sequence[str], split: str | None, most: tuple[int, int], seed: int = 0) -> Asked:
    """The judged queries of a BEIR folder, or at most so many queries cut from at most so many documents.

    Raises:
        DataError: what cannot be read.
        UsageError: no data, or a split of documents.
    """
    if not data:
        raise UsageError("relevance is fitted to documents", "add --data PATH: a BEIR folder, or documents")
    if len(data) == 1 and is_beir(Path(data[0])) and (Path(data[0]) / "qrels").is_dir():
        [task] = read_tasks(data, split)
        assert isinstance(task, RetrievalTask)
        return _by_people(task)
    if split is not None:
        raise UsageError(f"--split {split}: documents have no judgements", "leave --split out, or give a BEIR folder")
    return _cut(data, most, seed)


def _by_people(task: RetrievalTask) -> Asked:
    row = {key: place for place, key in enumerate(task.documents)}
    told = [{row[key] for key in task.relevant[query] if key in row} for query in task.queries]
    return Asked(task.name, *task.sides, told, True)


def _cut(data: Sequence[str], most: tuple[int, int], seed: int) -> Asked:
    random = np.random.default_rng(seed)
    documents = read_documents(data)
    chosen = random.choice(len(documents), min(most[1], len(documents)), replace=False)
    kept = [documents[row] for row in np.sort(chosen)]
    cut = pseudo_queries(kept)
    drawn = [cut[row] for row in np.sort(random.choice(len(cut), min(most[0], len(cut)), replace=False))]
    name = ", ".join(Path(path).name for path in data)
    return Asked(
        name, [each.text for each in drawn], [each.whole for each in kept], [{q.document} for q in drawn], False
    )


def judged_by_model(
    queries: Vectors, documents: Vectors, sources: Sequence[set[int]], similarity: str
) -> list[set[int]]:
    """What the documents' model holds relevant: the document a query was cut from, and the one that it finds first.

    With its first three or ten, maps put the hits of judged queries in a worse order, on SciFact and on Cranfield.
    `queries` `(queries, dim)` and `documents` are its own vectors of both.
    """
    scores = (similarities(query[None], documents, similarity)[0] for query in queries)
    return [source | {int(each.argmax())} for source, each in zip(sources, scores, strict=True)]
