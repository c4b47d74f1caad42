"""Evaluation sets: BEIR folders for retrieval, STS tables for similarity, how each is scored; and reading any kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from emb.artifact.fingerprints import content_hash
from emb.data.classification_sets import TEST, ClassificationTask, is_classification, is_labelled, read_classification
from emb.data.records import Record, read_lines, read_records, suffix, text_of
from emb.errors import DataError, UsageError
from emb.progress import note
from emb.similarity import Vectors, cosines, similarities, spearman, unit

_CUT = 10
DEPTH = _CUT + 1  # one more, for the query that is a document itself
_LAYOUTS = (
    "known: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), a table of sentence1, sentence2, score (.tsv,"
    " .csv), labelled texts (a folder with train and test, or a file with a column split), each plain or .gz"
)
_GRADES = (
    "each line: query-id, corpus-id and a whole number, or TREC's query-id, 0, corpus-id and a whole number, separated"
    " by tabs"
)


@dataclass(frozen=True)
class RetrievalTask:
    """Queries that have a relevant document, the documents, and the grades `relevant[query][document]` > 0.

    Scored by nDCG@10 × 100 as trec_eval does it: the gain is the grade, the discount log2(rank + 1), the ideal
    taken over all graded documents.
    """

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    relevant: dict[str, dict[str, int]]

    metric: ClassVar[str] = "nDCG@10"
    kinds: ClassVar[tuple[str, str]] = ("query", "document")

    @property
    def fingerprint(self) -> str:
        """Of the queries asked, the documents and the grades; not of the name."""
        return content_hash([self.queries, self.documents, self.relevant])

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The texts of each side: queries, documents."""
        return list(self.queries.values()), list(self.documents.values())

    def score(self, queries: Vectors, documents: Vectors, similarity: str = "cosine") -> float:
        """Mean nDCG@10 × 100 of ranking `documents` `(documents, dim)` by `similarity` to each of `queries`."""
        if similarity == "cosine":
            queries, documents, similarity = unit(queries), unit(documents), "dot"
        documents = documents.astype(np.float64)  # once, not for every query
        return self.score_rankings(
            np.argsort(-similarities(documents, query[None], similarity)[:, 0], kind="stable")[:DEPTH]
            for query in queries
        )

    def figures(self, queries: Vectors, documents: Vectors, similarity: str = "cosine") -> dict[str, float]:
        """Its one metric."""
        return {self.metric: self.score(queries, documents, similarity)}

    def score_rankings(self, rankings: Iterable[Sequence[int] | Vectors]) -> float:
        """Mean nDCG@10 × 100 of one ranking for each query: rows of documents, the best first, `DEPTH` of them."""
        keys = list(self.documents)
        gains = [
            self._gain(query, [keys[row] for row in ranking])
            for query, ranking in zip(self.queries, rankings, strict=True)
        ]
        return 100 * float(np.mean(gains))

    def _gain(self, query: str, found: Sequence[str]) -> float:
        # In sets of counter-arguments a query is itself a document, and must not find itself.
        itself = self.documents.get(query, "").endswith(self.queries[query])
        ranking = [key for key in found if not (itself and key == query)]
        return _dcg([self.relevant[query].get(key, 0) for key in ranking]) / _dcg(
            sorted(self.relevant[query].values(), reverse=True)
        )


@dataclass(frozen=True)
class PairTask:
    """Pairs of sentences with a human score of their likeness: Spearman correlation × 100 of cosine and score."""

    name: str
    first: list[str]
    second: list[str]
    scores: list[float]

    metric: ClassVar[str] = "Spearman"
    kinds: ClassVar[tuple[str, str]] = ("document", "document")

    @property
    def fingerprint(self) -> str:
        """Of the pairs and their scores; not of the name."""
        return content_hash([self.first, self.second, self.scores])

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The texts of each side."""
        return self.first, self.second

    def score(self, first: Vectors, second: Vectors, similarity: str = "cosine") -> float:
        """Spearman correlation × 100 of the pairs' `similarity` with the human scores."""
        alike = (
            cosines(first, second)
            if similarity == "cosine"
            else np.concatenate(
                [similarities(one[None], other[None], similarity)[0] for one, other in zip(first, second, strict=True)]
            )
        )
        return 100 * spearman(alike, np.asarray(self.scores))

    def figures(self, first: Vectors, second: Vectors, similarity: str = "cosine") -> dict[str, float]:
        """Its one metric."""
        return {self.metric: self.score(first, second, similarity)}


Task: TypeAlias = RetrievalTask | PairTask | ClassificationTask


def read_tasks(paths: Sequence[str | Path], split: str | None = None) -> list[Task]:
    """Read every task named by `paths`; a folder that holds no set itself stands for the tasks in it.

    `split` names the grades of BEIR folders, `qrels/{split}.tsv`, and the labelled texts that are tested on; None
    stands for "test".

    Raises:
        DataError: a path that is missing, holds no task, or is damaged (file and line are named), or a set without
            that split.
        UsageError: a split, and only tables of pairs.
    """
    found = [path for given in paths for path in _task_paths(Path(given))]
    if split is not None and not any(path.is_dir() or is_classification(path) for path in found):
        raise UsageError(
            f"--split {split}: no BEIR folder and no labelled texts among the data",
            "tables of pairs have no splits: leave --split out",
        )
    tasks = [_read(path, split or TEST) for path in found]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise DataError(
            f"two evaluation sets have the same name: {', '.join(names)}", "rename one of the folders or files"
        )
    return tasks


def _task_paths(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", _LAYOUTS)
    if path.is_file() or is_beir(path) or is_classification(path):
        return [path]
    found = [child for child in sorted(path.iterdir()) if _is_set(child)]
    if not found:
        raise DataError(f"{path}: no evaluation set in this folder", _LAYOUTS)
    return found


def _read(path: Path, split: str) -> Task:
    if is_beir(path):
        return _read_beir(path, split)
    return read_classification(path, split) if path.is_dir() or is_labelled(path) else _read_pairs(path)


def _is_set(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return is_beir(path) or (path.is_file() and suffix(path) in (".tsv", ".csv")) or is_classification(path)


def is_beir(path: Path) -> bool:
    """Whether a folder has the layout of BEIR's sets."""
    return path.is_dir() and any((path / f"corpus.jsonl{end}").is_file() for end in ("", ".gz"))


def _read_beir(folder: Path, split: str) -> RetrievalTask:
    documents = _read_texts(_either(folder, "corpus.jsonl"), _document)
    queries = _read_texts(_either(folder, "queries.jsonl"), lambda row, where: _text(row, "text", where))
    path = _grades_path(folder, split)
    relevant = _read_grades(path, queries)
    if strangers := len(relevant.keys() - queries.keys()):
        note(f"{path}: {strangers:,} of {len(relevant):,} graded queries are not in queries.jsonl and are left out")
    known = [key for key in relevant if key in queries]
    asked = {key: queries[key] for key in known if not relevant[key].keys().isdisjoint(documents)}
    if asked and (lost := len(known) - len(asked)):
        note(f"{path}: {lost:,} of {len(known):,} queries have no relevant document in the corpus and are left out")
    if not asked:
        hint = f"check that the ids in qrels/{path.name} are those of queries.jsonl and corpus.jsonl"
        raise DataError(f"{folder}: no query has a relevant document", hint)
    return RetrievalTask(folder.name, asked, documents, relevant)


def _grades_path(folder: Path, split: str) -> Path:
    found = {
        path.name.removesuffix(".gz").removesuffix(".tsv"): path
        for path in sorted((folder / "qrels").glob("*.tsv*"), reverse=True)
    }
    if split in found:
        return found[split]
    if not found:
        raise DataError(f"{folder / 'qrels' / split}.tsv: no such file, nor {split}.tsv.gz", _LAYOUTS)
    names = ", ".join(sorted(found))
    raise DataError(f"{folder}: no split {split!r} in qrels", f"there is {names}: choose one with --split")


def _document(row: Record, where: str) -> str:
    # BEIR's convention: the title is the beginning of the text. A title may be absent or null.
    title = text_of(row, "title", where) if "title" in row else ""
    return f"{title} {_text(row, 'text', where)}".strip()


def _text(row: Record, field: str, where: str) -> str:
    if row.get(field) is None:
        raise DataError(f"{where}: {'null' if field in row else 'nothing'} where {field!r} should be", _LAYOUTS)
    return text_of(row, field, where)


def _read_texts(path: Path, text: Callable[[Record, str], str]) -> dict[str, str]:
    """The texts of a file by their ids."""
    texts: dict[str, str] = {}
    for where, row in read_records(path):
        key = _key(row, where)
        if key in texts:
            raise DataError(f"{where}: the id {key!r} is used a second time", "give every text an id of its own")
        texts[key] = text(row, where)
    return texts


def _key(row: Record, where: str) -> str:
    key = row.get("_id")
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if not isinstance(key, str) or not key:
        raise DataError(f"{where}: no _id that is a string or a whole number", 'for example {"_id": "d1", "text": "…"}')
    return key


def _read_grades(path: Path, queries: Container[str]) -> dict[str, dict[str, int]]:
    """Grades above 0, by query and document.

    Lines are query, document, grade, with a header or without, or TREC's query, iteration, document, grade; between
    them stands a tab, or blanks.
    """
    grades: dict[tuple[str, str], int] = {}
    width = 0
    for where, line in read_lines(path):
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if not width:
            width = len(cells)
            if width in (3, 4) and cells[0] not in queries and _is_word(cells[-1]):
                continue  # the header
        if len(cells) != width or width not in (3, 4):
            raise DataError(f"{where}: {len(cells)} columns, not {width if width in (3, 4) else '3 or 4'}", _GRADES)
        pair, grade = (cells[0], cells[-2]), _grade(cells[-1], where)
        if grades.setdefault(pair, grade) != grade:
            raise DataError(
                f"{where}: a second grade for query {pair[0]!r} and document {pair[1]!r}", "keep one of them"
            )
    relevant: dict[str, dict[str, int]] = {}
    for (query, document), grade in grades.items():
        if grade > 0:
            relevant.setdefault(query, {})[document] = grade
    return relevant


def _is_word(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(cell)
    return False


def _grade(cell: str, where: str) -> int:
    score = _finite(cell, "grade", where)
    if not score.is_integer():
        raise DataError(f"{where}: grade {cell!r} is not a whole number", _GRADES)
    return int(score)


def _finite(cell: Any, name: str, where: str) -> float:
    try:
        number = math.nan if isinstance(cell, bool) else float(cell)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} {cell!r} is not a finite number", f"mend the {name}, or take the line out")
    return number


def _read_pairs(path: Path) -> PairTask:
    first, second, scores = [], [], []
    for where, row in read_records(path, "sentence1"):
        for column in ("sentence1", "sentence2", "score"):
            if column not in row:
                raise DataError(f"{where}: no column {column!r}; found: {', '.join(map(str, row))}", _LAYOUTS)
        first.append(_text(row, "sentence1", where))
        second.append(_text(row, "sentence2", where))
        scores.append(_finite(row["score"], "score", where))
    if len(set(scores)) < 2:
        raise DataError(
            f"{path}: {len(scores)} pairs; a rank correlation needs at least 2 with different scores", _LAYOUTS
        )
    return PairTask(path.name.split(".")[0], first, second, scores)


def _either(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}: no such file, nor {name}.gz", _LAYOUTS)


def _dcg(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 2) for rank, grade in enumerate(grades[:_CUT])))
