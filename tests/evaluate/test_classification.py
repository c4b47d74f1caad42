"""Labelled texts: every layout of files, what the classifier learns from, and the three figures."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.data.classification_sets import ClassificationTask, Labelled
from emb.data.evaluation_sets import PairTask, read_tasks
from emb.errors import DataError, UsageError
from emb.evaluate.evaluate import evaluate
from emb.evaluate.scoring import encode_sides
from emb.evaluate.subjects import open_subject
from emb.similarity import truncated

Rows = list[dict[str, Any]]
TRAIN: Rows = [{"text": f"a text {at}", "label": f"l{at % 3}"} for at in range(12)]
TEST: Rows = [{"text": f"another {at}", "label": f"l{at % 3}"} for at in range(5)]


def _write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        if kind == "jsonl":
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _folder(folder: Path, kind: str = "jsonl", train: Rows = TRAIN, **others: Rows) -> Path:
    for name, rows in {"train": train, **(others or {"test": TEST})}.items():
        _write(folder / f"{name}.{kind}", rows)
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "jsonl.gz", "tsv.gz"])
def test_every_layout_is_the_same_task(tmp_path: Path, kind: str) -> None:
    folder = _folder(tmp_path / "sets" / "greetings", kind)
    split = [row | {"split": name} for name, rows in (("train", TRAIN), ("test", TEST)) for row in rows]
    file = _write(tmp_path / f"greetings.{kind}", split)
    apart, together, found = (read_tasks([path])[0] for path in (folder, file, folder.parent))
    assert isinstance(apart, ClassificationTask)
    assert apart == together == found
    assert apart.name == "greetings"
    assert apart.train == Labelled([row["text"] for row in TRAIN], [row["label"] for row in TRAIN])
    assert apart.test.labels == ["l0", "l1", "l2", "l0", "l1"]


def test_another_split_is_tested_on(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", test=TEST, dev=TEST[:3])
    [task] = read_tasks([folder], "dev")
    assert isinstance(task, ClassificationTask)
    assert len(task.test.texts) == 3
    with pytest.raises(DataError, match=r"no labelled texts for 'gone'\n.*there is dev, test"):
        read_tasks([folder], "gone")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tscore\tlabel\na\tb\t1\tx\nc\td\t2\ty\n", encoding="utf-8")
    assert isinstance(read_tasks([pairs])[0], PairTask), "a table of pairs that has labels too"
    with pytest.raises(UsageError, match="no labelled texts among the data"):
        read_tasks([pairs], "dev")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": None}, "train.jsonl:13: None is not one label"),
        ({"text": "a", "label": ["x", "y"]}, "is not one label"),
        ({"text": "a", "label": 1.5}, "1.5 is not one label"),
        ({"text": "a", "label": True}, "True is not one label"),
        ({"text": "a", "label": ""}, "'' is not one label"),
        ({"text": "a"}, "no label; found: text"),
        ({"text": None, "label": "x"}, "null where 'text'"),
        ({"sentence": "a", "label": "x"}, "nothing where 'text'"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        read_tasks([_folder(tmp_path / "set", train=[*TRAIN, row])])
    assert said in str(error.value)


def test_sets_that_cannot_be_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="1 labels to learn"):
        read_tasks([_folder(tmp_path / "one", train=TRAIN[:1])])
    _write(tmp_path / "two" / "train.csv", TRAIN)
    with pytest.raises(DataError, match=r"train\.csv and train\.jsonl are both 'train'"):
        read_tasks([_folder(tmp_path / "two")])
    read_tasks([_folder(tmp_path / "strange", test=[*TEST, {"text": "a", "label": "new"}])])
    assert "1 texts have a label that none to learn from has (new)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match="no labelled texts for 'train'"):
        read_tasks([_write(tmp_path / "alone.jsonl", [row | {"split": "test"} for row in TEST])])


def _task(labels: list[str], test: list[str]) -> ClassificationTask:
    return ClassificationTask(
        "t",
        Labelled([f"t{at}" for at in range(len(labels))], labels),
        Labelled([f"q{at}" for at in range(len(test))], test),
    )


def test_each_experiment_learns_from_eight_other_texts_of_each_label() -> None:
    task = _task(["a"] * 40 + ["b"] * 40 + ["c"] * 3, ["a"])
    assert len(task.samples) == 10
    for rows in task.samples:
        assert Counter(task.train.labels[row] for row in rows) == {"a": 8, "b": 8, "c": 3}
    assert len({tuple(sorted(rows)) for rows in task.samples}) == 10
    texts = task.sides[1]
    assert set(texts) == {task.train.texts[row] for rows in task.samples for row in rows}, "no other text is encoded"


def test_figures_by_hand() -> None:
    """Two labels as far apart as can be; of four texts to label, three are where their label is."""
    task = _task(["2"] * 9 + ["10"] * 9, ["2", "2", "10", "10"])
    place = {"2": [1.0, 0.0], "10": [0.0, 1.0]}
    train = np.asarray([place[label] for label in task.train.labels], np.float32)[
        [task.train.texts.index(text) for text in task.sides[1]]
    ]
    test = np.asarray([place["2"], place["10"], place["10"], place["10"]], np.float32)
    found = task.figures(test, train)
    # F1 of "2": precision 1, recall 1/2; of "10": precision 2/3, recall 1. "10", the greater number, is what is sought.
    assert found == pytest.approx({"accuracy": 75, "F1": 100 * (2 / 3 + 4 / 5) / 2, "AP": 100 * 2 / 3})
    assert task.score(test, train) == found["accuracy"]
    assert set(_task(["a", "b", "c"], ["a"]).figures(test[:1], np.eye(3, 2, dtype=np.float32))) == {"accuracy", "F1"}


def test_a_classifier_learns_from_the_teacher_and_labels_the_students_vectors(
    student_folder: Path, bert_folder: Path, tmp_path: Path, sentences: list[str]
) -> None:
    rows = [{"text": text, "label": "?" if "?" in text else "."} for text in sentences]
    data = _folder(tmp_path / "questions", train=rows, test=rows[:6])
    found = evaluate([student_folder], [data], teacher=bert_folder, dims=[16], layers=[2])
    assert [(score.model, score.side, score.metric) for score in found.scores] == [
        (model, side, metric)
        for model, side in (
            ("tiny-bert", "symmetric"),
            ("tiny-student", "symmetric"),
            ("tiny-student", "asymmetric"),
        )
        for metric in ("accuracy", "F1", "AP")
    ]
    assert found.header()[5:] == ["questions accuracy", "questions F1", "questions AP"]
    assert len(found.rows()) == 3
    [task] = read_tasks([data])
    assert isinstance(task, ClassificationTask)
    student, teacher = open_subject(student_folder, [2], "fp32", (), 1), open_subject(bert_folder, (), "fp32", (), 1)
    test = truncated(next(iter(encode_sides(student, task, None)[0].values())), 16)
    train = truncated(next(iter(encode_sides(teacher, task, None)[1].values())), 16)
    assert found.scores[6].value == pytest.approx(task.score(test, train))
