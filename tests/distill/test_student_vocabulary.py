"""A recipe's vocabulary: the student's table fits the texts of its run."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

import emb
from emb.errors import UsageError
from emb.model.embedding_model import load_model
from emb.vocabulary import wanted
from emb.vocabulary.surgery import table_of

WORDS = ("zebrastripe", "riverboat", "windmill", "underground")
NEW = [f"the {word} and a {other} in rain, {place}" for place in "abcd" for word in WORDS for other in WORDS]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.tiny_bert(tmp_path / "teacher")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(NEW), encoding="utf-8")
    return path


def _distil(teacher: Path, texts: Path, out: str, **overrides: object) -> emb.distill.DistillResult:
    settings = {"training.epochs": 1, "training.lr": 1e-2, **overrides}
    return emb.distill(teacher, data=[texts], layers=2, out=teacher.parent / out, overrides=settings)


def test_a_trimmed_student_starts_where_the_whole_one_does(teacher: Path, texts: Path) -> None:
    still = {"training.epochs": 0}
    whole = _distil(teacher, texts, "whole", **still)
    trimmed = _distil(teacher, texts, "trimmed", **still, **{"vocabulary.keep_coverage": 1.0})
    assert [each.cosine for each in trimmed.scores] == pytest.approx([each.cosine for each in whole.scores], abs=1e-5)
    sizes = [len(table_of(load_model(run.student))) for run in (trimmed, whole)]
    assert sizes[0] < sizes[1]


def test_exactly_so_many_tokens_by_what_they_are_worth_or_by_counts(
    teacher: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = wanted.choose
    monkeypatch.setattr(wanted, "choose", lambda *given: asked.append(given[3]) or real(*given))
    still = {"training.epochs": 0, "vocabulary.rows": 90}
    for out, options in (("a", {}), ("b", {"vocabulary.choose": "counts"}), ("c", {"student.source": "fresh:2x32"})):
        run = _distil(teacher, texts, out, **still, **options)
        assert len(load_model(run.student).hf_tokenizer.get_vocab()) == 90
    assert asked == ["influence", "counts", "counts"]  # rows that are random say nothing


def test_the_random_rows_of_a_static_encoder_go_by_counts(
    teacher: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = wanted.choose
    monkeypatch.setattr(wanted, "choose", lambda *given: asked.append(given[3]) or real(*given))
    emb.distill(
        teacher,
        data=[texts],
        layers=0,
        out=teacher.parent / "s",
        overrides={"vocabulary.rows": 90, "training.epochs": 0},
    )
    assert asked == ["counts"]


def test_new_tokens_are_trained_with_the_student(teacher: Path, texts: Path) -> None:
    run = _distil(teacher, texts, "extended", **{"vocabulary.add": 3, "training.epochs": 2})
    student = load_model(run.student)
    vocab = student.hf_tokenizer.get_vocab()
    assert len(vocab.keys() - load_model(teacher).hf_tokenizer.get_vocab().keys()) == 3
    start = _distil(teacher, texts, "start", **{"vocabulary.add": 3, "training.epochs": 0})
    first = load_model(start.student)
    assert first.hf_tokenizer.get_vocab() == vocab
    assert not (table_of(student)[: len(vocab)] == table_of(first)[: len(vocab)]).all()


def test_both_students_of_a_query_run_are_trimmed(teacher: Path, texts: Path) -> None:
    pairs = [[0, 32], [1, 32]]
    run = emb.distill(
        teacher,
        documents=[texts],
        layers=1,
        rotate=False,
        out=teacher.parent / "queries",
        overrides={"vocabulary.keep_coverage": 0.99, "pairs": pairs, "training.epochs": 1, "data.holdout": 8},
    )
    whole = len(table_of(load_model(teacher)))
    assert all(len(table_of(load_model(place))) < whole for place in (run.student, run.run / "static" / "student"))


def test_documents_count_beside_what_is_cut_from_them(teacher: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs.txt"
    docs.write_text("\n".join(f"{line}. The committee met again." for line in NEW), encoding="utf-8")
    run = emb.distill(
        teacher,
        documents=[docs],
        layers=1,
        rotate=False,
        out=tmp_path / "run",
        overrides={
            "vocabulary.keep_coverage": 1.0,
            "data.cuts": {"sentences": 0, "spans": 0, "keywords": 0},
            "training.epochs": 0,
        },
    )
    assert "committee" in load_model(run.student).hf_tokenizer.get_vocab()  # of the first sentence alone it is no part


def test_a_run_resumes_with_its_vocabulary(teacher: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emb.distill.loop import Loop

    options = {"vocabulary.add": 3, "training.epochs": 2}
    whole = load_model(_distil(teacher, texts, "whole", **options).student)
    step = Loop._train_step

    def stopping(self: Loop, batch: object, rate: float) -> float:
        if self.step == 1:
            self._checkpoint()
            raise KeyboardInterrupt
        return step(self, batch, rate)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        _distil(teacher, texts, "stopped", **options)
    monkeypatch.setattr(Loop, "_train_step", step)
    resumed = load_model(emb.distill(out=teacher.parent / "stopped", resume=True).student)
    assert (table_of(resumed) == table_of(whole)).all()


def test_a_vocabulary_that_cannot_be(teacher: Path, texts: Path) -> None:
    with pytest.raises(UsageError, match=r"vocabulary\.keep_coverage"):
        _distil(teacher, texts, "a", **{"vocabulary.keep_coverage": 1.5})
    with pytest.raises(UsageError, match="rows and keep_coverage both say"):
        _distil(teacher, texts, "a", **{"vocabulary.keep_coverage": 0.9, "vocabulary.rows": 90})
    with pytest.raises(UsageError, match="choose goes with rows"):
        _distil(teacher, texts, "a", **{"vocabulary.choose": "counts"})
    with pytest.raises(UsageError, match="the texts support"):
        _distil(teacher, texts, "b", **{"vocabulary.add": 5000})
    assert not (teacher.parent / "b").exists()
