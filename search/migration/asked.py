"""What is searched for while maps are tried: judged queries where there are some, otherwise cuts of the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emb.data.documents import Document
from emb.data.evaluation_sets import RetrievalTask, is_beir, read_tasks
from emb.data.pseudo_queries import pseudo_queries
from emb.errors import UsageError
from emb.search.index.documents import Entry

_MOST = 500  # cut from documents
_LEAST = 20  # judged ones that have a document in the sample


@dataclass(frozen=True)
class Asked:
    """Queries, and their grades by document, rows of a sample: what people `judged`, or the one they were cut from."""

    texts: Sequence[str]
    relevant: Sequence[Mapping[int, int]]
    judged: bool


def read_judged(data: str | Path | None) -> RetrievalTask | None:
    """The queries of a BEIR folder.

    Raises:
        UsageError: another kind of data.
        DataError: it cannot be read.
    """
    if data is None:
        return None
    if not is_beir(Path(data)):
        raise UsageError(
            f"--data {data}: no judged queries",
            "give a BEIR folder, or leave it out: queries are cut from the documents",
        )
    [task] = read_tasks([data])
    assert isinstance(task, RetrievalTask)
    return task


def judged_documents(task: RetrievalTask | None) -> set[str]:
    """Ids of documents that are relevant to a query."""
    return {name for graded in task.relevant.values() for name, grade in graded.items() if grade > 0} if task else set()


def asked_of(task: RetrievalTask | None, entries: Sequence[Entry], seed: int) -> Asked:
    """The queries that have a relevant document among `entries`.

    Raises:
        UsageError: too few of the judged ones.
    """
    return _cut(entries, seed) if task is None else _judged(task, entries)


def _judged(task: RetrievalTask, entries: Sequence[Entry]) -> Asked:
    rows = {entry.id: row for row, entry in enumerate(entries)}
    found = {
        name: {rows[each]: grade for each, grade in task.relevant[name].items() if each in rows}
        for name in task.queries
    }
    kept = [name for name, graded in found.items() if any(grade > 0 for grade in graded.values())]
    if len(kept) < _LEAST:
        raise UsageError(
            f"{len(kept)} judged queries have a relevant document among the {len(entries):,} looked at",
            f"give judgements of at least {_LEAST} for documents of this index, or leave out --data",
        )
    return Asked([task.queries[name] for name in kept], [found[name] for name in kept], True)


def _cut(entries: Sequence[Entry], seed: int) -> Asked:
    cuts = pseudo_queries([Document(entry.title, entry.text) for entry in entries], seed=seed)
    chosen = [cuts[place] for place in np.linspace(0, len(cuts) - 1, min(_MOST, len(cuts))).astype(int)]
    return Asked([each.text for each in chosen], [{each.document: 1} for each in chosen], False)
