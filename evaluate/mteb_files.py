"""A task of mteb with its data from files, for machines that do not reach the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emb.data.classification_sets import TEST, ClassificationTask, Labelled, is_classification
from emb.data.evaluation_sets import PairTask, RetrievalTask, read_tasks
from emb.data.evaluation_sets import Task as FileTask
from emb.errors import UsageError


def fill(task: Any, path: str, split: str | None) -> str:
    """Give mteb's `task` the set at `path`; the fingerprint of that set.

    How it is scored stays mteb's. `split` is one of the task's; None stands for "test" if it has that.

    Raises:
        DataError: no set there.
        UsageError: another kind of set than the task's, a task of many languages, or a split that it has not.
    """
    name, splits = task.metadata.name, list(task.eval_splits)
    chosen = split or (TEST if TEST in splits else splits[0])
    if task.hf_subsets != ["default"]:
        raise UsageError(
            f"--task {name}: has a set for each of {len(task.hf_subsets)} languages", f"--task {name} alone"
        )
    choose_split(task, chosen)
    given = _read(path, chosen)
    task.dataset = _data(task, given, chosen)
    task.data_loaded = True
    return given.fingerprint


def choose_split(task: Any, split: str) -> None:
    """Let mteb's `task` be scored on `split` alone.

    Raises:
        UsageError: it has no such split.
    """
    if split not in task.eval_splits:
        raise UsageError(
            f"--split {split}: {task.metadata.name} is scored on {', '.join(task.eval_splits)}", "name one of those"
        )
    task.filter_eval_splits([split])


def _read(path: str, split: str) -> FileTask:
    place = Path(path)
    has_splits = place.is_dir() or (place.is_file() and is_classification(place))
    found = read_tasks([path], split if has_splits else None)
    if len(found) != 1:
        raise UsageError(f"{path}: holds {len(found)} sets", "name one of them")
    return found[0]


def _data(task: Any, given: FileTask, split: str) -> Any:
    """As `task` has it when it comes from the hub."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS

    if isinstance(task, AbsTaskRetrieval) and isinstance(given, RetrievalTask):
        return {"default": {split: _searched(given)}}
    if isinstance(task, AbsTaskSTS) and isinstance(given, PairTask):
        first, second = task.column_names
        columns = {first: given.first, second: given.second, "score": given.scores}
        return DatasetDict({split: Dataset.from_dict(columns)})
    if isinstance(task, AbsTaskClassification) and isinstance(given, ClassificationTask):
        parts = {task.train_split: given.train, split: given.test}
        text, label = task.input_column_name, task.label_column_name
        codes = given.label_codes
        return DatasetDict(
            {name: Dataset.from_dict(_labelled(part, text, label, codes)) for name, part in parts.items()}
        )
    kind = task.metadata.type
    raise UsageError(
        f"--task {task.metadata.name}: is {kind}, and {given.name} is scored by {given.metric}",
        "sets in files are for retrieval (a BEIR folder), STS (a table of pairs) and classification (labelled texts)",
    )


def _searched(given: RetrievalTask) -> dict[str, Any]:
    from datasets import Dataset

    sides = {"corpus": given.documents, "queries": given.queries}
    tables = {
        name: Dataset.from_dict({"id": list(texts), "text": list(texts.values())}) for name, texts in sides.items()
    }
    relevant = {query: dict(grades) for query, grades in given.relevant.items() if query in given.queries}
    return {**tables, "relevant_docs": relevant, "top_ranked": None}


def _labelled(part: Labelled, text: str, label: str, codes: dict[str, int]) -> dict[str, list[Any]]:
    return {text: part.texts, label: [codes[each] for each in part.labels]}
