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
from emb.evaluate.mteb_files import choose_split, fill
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
    def is_search(self) -> bool:
        """Whether queries and documents are told apart."""
        from mteb.abstasks import AbsTaskRetrieval

        return isinstance(self.task, AbsTaskRetrieval)

    @property
    def fingerprint(self) -> str:
        """Of its data: ours, or the commit on the hub."""
        return self.revision or str(self.task.metadata.revision)


def find_tasks(named: Sequence[Any], split: str | None = None) -> list[MtebTask]:
    """mteb's tasks of these names, NAME=PATH with the data in files at PATH; what is a task already stays one.

    Raises:
        DataError: no set at PATH.
        MissingExtra: mteb is not installed.
        UsageError: mteb has no task of that name, or not one of texts, or not one for such data; or one is named twice.
    """
    if not named:
        return []
    with needs_extra():
        import mteb
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other names for a task, and of its age
        found = [_found(mteb, each, split) if isinstance(each, str) else MtebTask(each) for each in named]
    for each in found if split is not None else ():
        choose_split(each.task, str(split))
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--task {twice[0]}: named twice", "name it once")
    return found


def _found(mteb: Any, asked: str, split: str | None) -> MtebTask:
    name, _, path = asked.partition("=")
    task = _task(mteb, name)
    if task.is_aggregate:
        names = " --task ".join(each.metadata.name for each in task.metadata.tasks)
        raise UsageError(f"--task {name}: stands for {len(task.metadata.tasks)} tasks", f"name those: --task {names}")
    if task.metadata.modalities != ["text"]:
        raise UsageError(f"--task {name}: is of {', '.join(task.metadata.modalities)}", "name a task of texts alone")
    return MtebTask(task, fill(task, path, split) if path else None)


def _task(mteb: Any, name: str) -> Any:
    try:
        return mteb.get_task(name)
    except KeyError:
        known = {each.metadata.name for each in mteb.get_tasks(exclude_superseded=False, exclude_private=False)}
    by_lower = {each.lower(): each for each in known}
    close = [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(
        f"--task {name}: mteb has no task of that name",
        f"{hint}https://huggingface.co/spaces/mteb/leaderboard lists them; sets of your own go to --data",
    )


@contextmanager
def loaded(given: MtebTask) -> Iterator[MtebTask]:
    """The task with its data, which are let go of afterwards if they were not there before.

    Raises:
        DataError: they cannot be fetched.
    """
    before = given.task.data_loaded
    try:
        if not before:
            given.task.load_data()
    except Exception as error:
        # Which library raises, and what, differs between releases of datasets and of the hub's client.
        if isinstance(error, OSError | ValueError) or type(error).__module__.split(".")[0] in _CLIENT:
            raise _not_fetched(given, error) from error
        raise
    try:
        yield given
    finally:
        if not before:
            given.task.unload_data()


def _not_fetched(given: MtebTask, error: Exception) -> DataError:
    place = given.task.metadata.dataset["path"]
    return DataError(
        f"--task {given.name}: its data set {place} could not be fetched ({first_line(error)})",
        f"give its texts as files, --task {given.name}=PATH; or on a machine with access:\n"
        f"  hf download --repo-type dataset {place}, and bring what it wrote to $HF_HOME along",
    )


class Vectorised:
    """A model's vectors of a task's texts, each encoded once for all its outputs and dims."""

    def __init__(self, subject: Subject, cache: Path | None) -> None:
        self.subject = subject
        self._cache, self._memo = cache, dict[str, dict[Output, Vectors]]()

    def vectors(self, texts: Sequence[str], kind: str, point: Output, dim: int) -> Vectors:
        """Vectors `(texts, dim)` at one output."""
        key = hashlib.sha256(json.dumps([kind, *texts]).encode()).hexdigest()
        if key not in self._memo:
            self._memo[key] = encoded(self.subject, texts, kind, self._cache)
        return _cut(self._memo[key][point], dim, self.subject.similarity)

    def first(self) -> Output:
        """The output that is searched in: a teacher has one."""
        return self.subject.points[0]


def _cut(vectors: Vectors, dim: int, similarity: str) -> Vectors:
    return truncated(vectors, dim) if similarity == "cosine" else vectors[:, :dim]  # length counts


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
    with _no_bars(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is superseded by")  # mteb's log says so too
        found = mteb.evaluate(
            model, given.task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs=options
        )
    [result] = found.task_results
    return result.model_copy(update={"dataset_revision": given.fingerprint})


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without those of datasets, one for each table that is turned over; ours show what takes time."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    before = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if before:
            enable_progress_bar()
