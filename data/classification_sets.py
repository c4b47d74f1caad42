"""Classification sets: labelled texts to learn from and to test on, and the score of a plain classifier on vectors.

As MTEB does it (Muennighoff et al. 2023): logistic regression on a few texts of each label, ten times on other texts,
and the mean. The embeddings stay as they are, so that what is measured is how well they part the labels.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from emb.artifact.fingerprints import content_hash
from emb.data.records import Record, read_records, suffix, text_of
from emb.errors import DataError, needs_extra
from emb.progress import warn
from emb.similarity import Vectors

Codes: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
TRAIN, TEST = "train", "test"
_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
_PER_LABEL, _EXPERIMENTS, _SEED, _STEPS = 8, 10, 42, 100  # mteb's, so that figures can be compared
_LAYOUT = (
    "known: a folder with train and test (.jsonl, .csv, .tsv, .parquet, each also as .gz), or one such file with a"
    " column split; each row has a text and a label, a string or a whole number"
)


@dataclass(frozen=True)
class Labelled:
    """Texts and the label of each."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class ClassificationTask:
    """Texts to label, and labelled ones to learn from.

    The accuracy, the macro F1 and, of two labels, the average precision of the greater one, each × 100 and in the mean
    over the experiments. The texts to label are the side of the queries: on the asymmetric side a classifier that has
    learned from the teacher's vectors is given the student's.
    """

    name: str
    train: Labelled
    test: Labelled

    metric: ClassVar[str] = "accuracy"
    kinds: ClassVar[tuple[str, str]] = ("document", "document")

    @property
    def fingerprint(self) -> str:
        """Of the texts, their labels and how they are sampled; not of the name."""
        parts = [[part.texts, part.labels] for part in (self.train, self.test)]
        return content_hash([parts, _PER_LABEL, _EXPERIMENTS, _SEED])

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The texts to label, and those that some experiment learns from."""
        return self.test.texts, [self.train.texts[row] for row in self._used]

    @cached_property
    def samples(self) -> list[list[int]]:
        """Rows of `train` that each experiment learns from, at most eight of a label.

        Every experiment shuffles the order that the one before left, with the same seed: so does mteb.
        """
        order, found = list(range(len(self.train.texts))), []
        for _ in range(_EXPERIMENTS):
            np.random.RandomState(_SEED).shuffle(order)
            found.append(self._first_of_each(order))
        return found

    def figures(self, test: Vectors, train: Vectors, similarity: str = "cosine") -> dict[str, float]:
        """Each metric of the vectors `(texts, dim)` of the two sides; no `similarity` comes into it."""
        codes = self.label_codes
        learned, expected = (np.asarray([codes[each] for each in part.labels]) for part in (self.train, self.test))
        place = {row: at for at, row in enumerate(self._used)}
        found = []
        for rows in self.samples:
            predicted = _predicted(train[[place[row] for row in rows]], learned[rows], test)
            found.append(_measured(expected, predicted, binary=len(codes) == 2))
        return {metric: 100 * float(np.mean([each[metric] for each in found])) for metric in found[0]}

    def score(self, test: Vectors, train: Vectors, similarity: str = "cosine") -> float:
        """The accuracy × 100."""
        return self.figures(test, train)[self.metric]

    @cached_property
    def _used(self) -> list[int]:
        return sorted({row for rows in self.samples for row in rows})

    @cached_property
    def label_codes(self) -> dict[str, int]:
        """A number for each label, in their order: of whole numbers as such."""
        return {name: code for code, name in enumerate(_ordered({*self.train.labels, *self.test.labels}))}

    def _first_of_each(self, order: Sequence[int]) -> list[int]:
        seen: Counter[str] = Counter()
        rows = []
        for row in order:
            seen[self.train.labels[row]] += 1
            if seen[self.train.labels[row]] <= _PER_LABEL:
                rows.append(row)
        return rows


def _ordered(labels: set[str]) -> list[str]:
    try:
        return sorted(labels, key=int)
    except ValueError:
        return sorted(labels)


def _predicted(train: Vectors, labels: Codes, test: Vectors) -> Codes:
    """The labels of `test` by a classifier that has learned from `train`.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    with needs_extra():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    classifier = LogisticRegression(max_iter=_STEPS, random_state=_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping after so many steps is part of the measure
        return np.asarray(classifier.fit(train, labels).predict(test))


def _measured(
    expected: Codes,
    predicted: Codes,
    *,
    binary: bool,
) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score

    found = {"accuracy": accuracy_score(expected, predicted), "F1": f1_score(expected, predicted, average="macro")}
    return found | ({"AP": average_precision_score(expected, predicted)} if binary else {})


def is_classification(path: Path) -> bool:
    """Whether a folder has labelled texts in `train.*` beside others, or a file labelled texts and their splits."""
    if path.is_dir():
        parts = _parts(path)
        return len(parts) > 1 and TRAIN in parts and is_labelled(parts[TRAIN][0])
    return suffix(path) in _SUFFIXES and is_labelled(path) and "split" in columns_of(path)


def is_labelled(path: Path) -> bool:
    """Whether a file holds labelled texts, whatever else: a table of pairs may have labels too.

    Raises:
        DataError: it cannot be read.
    """
    columns = columns_of(path)
    return "label" in columns and "sentence1" not in columns


def columns_of(path: Path) -> tuple[str, ...]:
    """The names of the first record's fields; none in an empty file."""
    return next((tuple(record) for _, record in read_records(path, "")), ())


def read_classification(path: Path, split: str = TEST) -> ClassificationTask:
    """The labelled texts of a folder or file, tested on those of `split`.

    Raises:
        DataError: no such split, a text or label that is none, or fewer than two labels to learn.
    """
    read = _of_folder(path, split) if path.is_dir() else _of_file(path, split)
    return _checked(path, ClassificationTask(path.name.split(".")[0], read[TRAIN], read[split]))


def _of_folder(folder: Path, split: str) -> dict[str, Labelled]:
    parts = _parts(folder)
    _require_splits(folder, split, parts)
    for name in (TRAIN, split):
        if len(parts[name]) > 1:
            twins = " and ".join(path.name for path in parts[name])
            raise DataError(f"{folder}: {twins} are both {name!r}", "keep one of them there")
    return {name: _labelled(read_records(parts[name][0], "")) for name in (TRAIN, split)}


def _of_file(path: Path, split: str) -> dict[str, Labelled]:
    rows: dict[str, list[tuple[str, Record]]] = {}
    for where, row in read_records(path, ""):
        rows.setdefault(_cell(row, "split", where), []).append((where, row))
    _require_splits(path, split, rows)
    return {name: _labelled(rows[name]) for name in (TRAIN, split)}


def _parts(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that may hold labelled texts, by their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and suffix(path) in _SUFFIXES:
            found.setdefault(path.name.split(".")[0], []).append(path)
    return found


def _require_splits(path: Path, split: str, found: Mapping[str, object]) -> None:
    others = ", ".join(sorted(found.keys() - {TRAIN}))
    for name in (TRAIN, split):
        if name not in found:
            mend = f"there is {others}: choose one with --split" if TRAIN in found and others else _LAYOUT
            raise DataError(f"{path}: no labelled texts for {name!r}", mend)


def _labelled(rows: Iterable[tuple[str, Record]]) -> Labelled:
    pairs = [(_text(row, where), _cell(row, "label", where)) for where, row in rows]
    return Labelled([text for text, _ in pairs], [label for _, label in pairs])


def _text(row: Record, where: str) -> str:
    if row.get("text") is None:
        raise DataError(f"{where}: {'null' if 'text' in row else 'nothing'} where 'text' should be", _LAYOUT)
    return text_of(row, "text", where)


def _cell(row: Record, name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        shown = f"{value!r} is not one {name}" if name in row else f"no {name}; found: {', '.join(row)}"
        raise DataError(f"{where}: {shown}", _LAYOUT)
    return str(value)


def _checked(path: Path, task: ClassificationTask) -> ClassificationTask:
    known = set(task.train.labels)
    if len(known) < 2 or not task.test.texts:
        raise DataError(f"{path}: {len(known)} labels to learn, {len(task.test.texts)} texts to test on", _LAYOUT)
    if strange := set(task.test.labels) - known:
        texts = sum(label in strange for label in task.test.labels)
        warn(f"{path}: {texts:,} texts have a label that none to learn from has ({min(strange)}): always wrong")
    return task
