"""Texts longer than what is read are counted to the token, and said above one in a hundred."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_bert
from tokenizers import Tokenizer

from emb.data.corpus import Text
from emb.evaluate.subjects import open_subject
from emb.export.calibration import texts_of
from emb.export.options import Options
from emb.export.source import find_source
from emb.model.embedding_model import load_model
from emb.runtime.encoder import load
from emb.runtime.streams import encode_file
from emb.teachers.capture import capture
from emb.teachers.folder import FolderTeacher
from emb.teachers.protocol import TeacherIdentity
from emb.tokens import Cut, TextTokenizer, count_cut, tell
from emb.validate.proof import validate

LONG = "cat " * 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that reads 64 tokens."""
    return tiny_bert(tmp_path_factory.mktemp("cut") / "bert")


def _tokenizer(folder: Path, limit: int, side: str = "right") -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), max_length=limit, pad_id=0, side=side)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [8, 9, 64])
def test_every_lost_token_is_counted(folder: Path, limit: int, side: str) -> None:
    tokenizer, free = _tokenizer(folder, limit, side), _tokenizer(folder, 10_000)
    texts = [
        "",
        "cat",
        LONG,
        "the cat sat on the mat",
        *("cat " * count for count in (limit - 3, limit - 2, limit - 1)),
    ]
    expected = [max(0, len(row) - limit) for row in free.encode(texts)]
    found = count_cut(tokenizer, texts)
    assert found == Cut(len(texts), sum(map(bool, expected)), sum(expected), limit)
    assert 0 < found.cut < len(texts)
    assert count_cut(tokenizer, texts, rows=tokenizer.encode(texts)) == found


def test_prompts_count(folder: Path) -> None:
    text = "cat " * 60
    assert count_cut(_tokenizer(folder, 64), [text]).cut == 0
    assert count_cut(_tokenizer(folder, 64), [text], "the cat sat ").tokens_lost == 1
    assert count_cut(_tokenizer(folder, 64), [text, text], ["the cat sat ", ""]).cut == 1


def test_letters_are_lowered_where_the_model_lowers_them(folder: Path) -> None:
    cased = _tokenizer(folder, 8).tokenizer.to_str().replace('"lowercase":true', '"lowercase":false')
    counts = [
        count_cut(
            TextTokenizer(Tokenizer.from_str(cased), max_length=8, pad_id=0, lowercase=lowercase), ["TACS " * 20]
        ).tokens_lost
        for lowercase in (False, True)
    ]
    assert counts[0] == 20 + 2 - 8  # each word is unknown, one token
    assert counts[1] == count_cut(_tokenizer(folder, 8), ["tacs " * 20]).tokens_lost > counts[0]


def test_only_full_rows_are_read_again(folder: Path) -> None:
    tokenizer = _tokenizer(folder, 8)
    texts = ["cat", LONG, "the cat"]
    rows = tokenizer.encode(texts)
    assert count_cut(tokenizer, [LONG, LONG, LONG], rows=rows).cut == 1


def test_one_in_a_hundred_is_said_and_fewer_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Cut(100, 1, 50, 64), "texts of a test")
    tell(Cut(0, 0, 0, 64), "no texts")
    assert capsys.readouterr().err == ""
    tell(Cut(1000, 11, 1234, 64), "texts of a test", "write fewer")
    said = " ".join(capsys.readouterr().err.split())
    assert (
        said
        == "warning: texts of a test: 11 of 1,000 (1%) are longer than the 64 tokens that are read; 1,234 tokens are"
        " left out; write fewer"
    )


def test_capture_says_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMB_CACHE", str(tmp_path))
    teacher = FolderTeacher(load_model(folder), TeacherIdentity("w", 64, "float32"))
    capture(teacher, [Text("cat", "document"), Text(LONG, "document")])
    teacher.tell_cut()
    said = " ".join(capsys.readouterr().err.split())
    assert "texts for the teacher: 1 of 2 (50%)" in said
    assert "38 tokens are left out; --set capture.max_length=N reads more, as far as the teacher can" in said


def test_evaluation_says_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_subject(folder, [], "fp32", [], 1).vectors(["cat", LONG], "query")
    assert "bert (query): 1 of 2 (50%) are longer than the 64 tokens that are read" in " ".join(
        capsys.readouterr().err.split()
    )


def test_encoding_a_file_says_it_of_all_its_blocks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emb.runtime.streams.BLOCK", 2)
    (tmp_path / "in.txt").write_text(
        "".join(f"{text}\n" for text in ("cat", LONG, "dog", LONG, "rain")), encoding="utf-8"
    )
    encode_file(load(folder), tmp_path / "in.txt", tmp_path / "out.npy")
    said = " ".join(capsys.readouterr().err.split())
    assert "in.txt: 2 of 5 (40%) are longer than the 64 tokens that are read; 76 tokens are left out" in said


def test_evaluation_of_an_export_says_it_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import emb

    [artifact] = emb.export(
        folder,
        out=tmp_path / "out",
        fp16=True,
        calibration_texts=["The cat sat on the mat.", "What is the capital of France?"],
        threads=1,
    )
    capsys.readouterr()
    open_subject(artifact, [], "fp32", [], 1).vectors(["cat", LONG], "query")
    assert capsys.readouterr().err.count("are longer than") == 1


def test_export_and_validation_say_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import emb

    texts = ["The cat sat on the mat.", "What is the capital of France?", LONG]
    texts_of(Options(calibration_texts=texts), find_source(folder, True), load_model(folder))
    assert "texts to calibrate and judge on: 1 of 3 (33%)" in " ".join(capsys.readouterr().err.split())
    [artifact] = emb.export(folder, layers=[2], dims=[32], out=tmp_path / "out", calibration_texts=texts[:2], threads=1)
    assert "are longer than" not in capsys.readouterr().err  # texts made to be too long are no news
    validate(artifact, texts=texts)
    assert "texts to validate on: 1 of 3 (33%)" in " ".join(capsys.readouterr().err.split())
