"""Evaluation sets: BEIR folders for retrieval, STS tables for similarity, and how each is scored."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from emb.errors import DataError
from emb.fingerprints import content_hash
from emb.similarity import Vectors, cosines, spearman, unit

_CUT = 10
DEPTH = _CUT + 1  # one more, for the query that is a document itself
_LAYOUTS = "known: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv) or a table of sentence1, sentence2, score (.tsv, .csv), each plain or .gz"


@dataclass(frozen=True)
class RetrievalTask:
    """Queries that have a relevant document, the documents, and the grades `relevant[query][document]` > 0.

    Scored by nDCG@10 × 100 as trec_eval does it: the gain is the grade, the discount log2(rank + 1),
    the ideal taken over all graded documents.
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

    def score(self, queries: Vectors, documents: Vectors) -> float:
        """Mean nDCG@10 × 100 of ranking `documents` `(documents, dim)` by cosine to each of `queries`."""
        documents = unit(documents)
        return self.score_rankings(np.argsort(-(documents @ vector), kind="stable")[:DEPTH] for vector in unit(queries))

    def score_rankings(self, rankings: Iterable[Sequence[int] | Vectors]) -> float:
        """Mean nDCG@10 × 100 of one ranking for each query: rows of documents, the best first, `DEPTH` of them."""
        keys = list(self.documents)
        gains = [self._gain(query, [keys[row] for row in ranking]) for query, ranking in zip(self.queries, rankings, strict=True)]
        return 100 * float(np.mean(gains))

    def _gain(self, query: str, found: Sequence[str]) -> float:
        # In sets of counter-arguments a query is itself a document, and must not find itself.
        itself = self.documents.get(query, "").endswith(self.queries[query])
        ranking = [key for key in found if not (itself and key == query)]
        return _dcg([self.relevant[query].get(key, 0) for key in ranking]) / _dcg(sorted(self.relevant[query].values(), reverse=True))


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

    def score(self, first: Vectors, second: Vectors) -> float:
        """Spearman correlation × 100 of the pairs' cosines with the human scores."""
        return 100 * spearman(cosines(first, second), np.asarray(self.scores))


class _PlainTabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE


Task: TypeAlias = RetrievalTask | PairTask


def read_tasks(paths: Sequence[str | Path]) -> list[Task]:
    """Read every task named by `paths`; a folder that is no BEIR folder stands for the tasks in it.

    Raises:
        DataError: a path that is missing, holds no task, or is damaged (file and line are named).
    """
    tasks = [_read(path) for given in paths for path in _task_paths(Path(given))]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise DataError(f"two evaluation sets have the same name: {', '.join(names)}", "rename one of the folders or files")
    return tasks


def _task_paths(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", _LAYOUTS)
    if path.is_file() or _is_beir(path):
        return [path]
    found = [child for child in sorted(path.iterdir()) if _is_beir(child) or _is_table(child)]
    if not found:
        raise DataError(f"{path}: no evaluation set in this folder", _LAYOUTS)
    return found


def _read(path: Path) -> Task:
    return _read_beir(path) if path.is_dir() else _read_pairs(path)


def _is_beir(path: Path) -> bool:
    return path.is_dir() and any((path / f"corpus.jsonl{end}").is_file() for end in ("", ".gz"))


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith((".tsv", ".csv"))


def _read_beir(folder: Path) -> RetrievalTask:
    documents = {key: _document(row) for key, row in _read_rows(folder, "corpus.jsonl")}
    queries = {key: str(row["text"]) for key, row in _read_rows(folder, "queries.jsonl")}
    relevant = _read_grades(_either(folder / "qrels", "test.tsv"))
    asked = {key: queries[key] for key, grades in relevant.items() if key in queries and not grades.keys().isdisjoint(documents)}
    if not asked:
        raise DataError(f"{folder}: no query has a relevant document", "check that the ids in qrels/test.tsv are those of queries.jsonl and corpus.jsonl")
    return RetrievalTask(folder.name, asked, documents, relevant)


def _document(row: dict[str, Any]) -> str:
    # BEIR's convention: the title is the beginning of the text.
    return f"{row.get('title') or ''} {row['text']}".strip()


def _read_rows(folder: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = _either(folder, name)
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            yield str(row["_id"]), row | {"text": row["text"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a JSON object with _id and text ({error!r})", "one JSON object a line") from error


def _read_grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        cells = line.rstrip("\r\n").split("\t")
        if number == 1 and not cells[-1].lstrip("-").isdigit():
            continue  # the header
        try:
            query, document, grade = cells[0], cells[-2], int(cells[-1])
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}, line {number}: not query-id, corpus-id and a whole number", "three columns separated by tabs") from error
        if grade > 0:
            grades.setdefault(query, {})[document] = grade
    return grades


def _read_pairs(path: Path) -> PairTask:
    dialect = csv.excel if path.name.removesuffix(".gz").endswith(".csv") else _PlainTabs
    try:
        rows = list(csv.DictReader(io.StringIO("".join(line for _, line in _lines(path))), dialect=dialect))
        columns = [[row[name] for row in rows] for name in ("sentence1", "sentence2", "score")]
        scores = [float(score) for score in columns[2]]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: columns sentence1, sentence2 and a number score are needed ({error!r})", _LAYOUTS) from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} pairs; a rank correlation needs at least 2")
    return PairTask(path.name.split(".")[0], columns[0], columns[1], scores)


def _either(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}: no such file, nor {name}.gz", _LAYOUTS)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as handle:
            yield from ((number, line) for number, line in enumerate(handle, 1) if line.strip())
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})", "save it as UTF-8") from error


def _dcg(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 2) for rank, grade in enumerate(grades[:_CUT])))
