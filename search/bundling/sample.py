"""The queries and documents that a bundle is tried on: all of them, or a sample that keeps what is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emb.data.documents import read_documents
from emb.data.evaluation_sets import RetrievalTask, is_beir, read_tasks
from emb.data.pseudo_queries import pseudo_queries


def task_of(data: Sequence[str], count: int) -> RetrievalTask:
    """The queries and documents of `data`: a BEIR folder whole, of documents the first `count` and as many queries cut
    from them, which have no judgements.
    """
    if len(data) == 1 and is_beir(Path(data[0])):
        [task] = read_tasks(data)
        assert isinstance(task, RetrievalTask)
        return task
    return _cut_from(data, count)


def sample_of(data: Sequence[str], count: int) -> RetrievalTask:
    """The same with no more than `count` documents, and the queries whose judged ones are among them.

    Half of the room is for judged documents, of queries from all over the set; the others fill it up.
    """
    task = task_of(data, count)
    if not task.relevant or len(task.documents) <= count:
        return task
    queries: dict[str, str] = {}
    kept: set[str] = set()
    for key in _spread(list(task.queries), len(task.queries)):
        judged = kept | (task.relevant[key].keys() & task.documents.keys())
        if len(judged) <= max(1, count // 2) or not queries:
            queries[key], kept = task.queries[key], judged
    others = [key for key in task.documents if key not in kept]
    kept |= set(_spread(others, count - len(kept)))
    documents = {key: text for key, text in task.documents.items() if key in kept}
    return replace(task, queries=queries, documents=documents)


def _cut_from(data: Sequence[str], count: int) -> RetrievalTask:
    documents = read_documents(data)[:count]
    cut = pseudo_queries(documents)
    return RetrievalTask(
        ", ".join(Path(path).name for path in data),
        {str(row): cut[row].text for row in np.linspace(0, len(cut) - 1, min(count, len(cut))).astype(int)},
        {str(row): each.whole for row, each in enumerate(documents)},
        {},
    )


def _spread(keys: Sequence[str], count: int) -> list[str]:
    """`count` of `keys` from all over, in an order in which every beginning is from all over too."""
    rows = np.argsort(np.arange(len(keys)) * 0.6180339887498949 % 1, kind="stable")  # the golden ratio's multiples
    return [keys[row] for row in rows[: max(0, count)]]
