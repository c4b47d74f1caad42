"""The corpus every machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from emb.data import default_corpus as room
from emb.data.default_corpus import default_corpus
from emb.errors import DataError


def test_first_texts_are_different_and_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = default_corpus(2000)
    assert len(corpus) == 2000
    assert len(set(corpus.texts)) == 2000
    kinds = [item.kind for item in corpus.texts]
    assert kinds.count("query") > 50
    assert kinds.count("document") > 500
    assert all(item.text == " ".join(item.text.split()) and len(item.text) >= 20 for item in corpus.texts)


def test_same_on_every_call_and_a_prefix_of_more() -> None:
    assert default_corpus(300).digest == default_corpus(300).digest
    assert default_corpus(500).texts[:300] == default_corpus(300).texts


def test_too_small_a_limit() -> None:
    with pytest.raises(DataError, match="5 different texts"):
        default_corpus(5)


def test_docstrings_are_parsed_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docstring = (
        '"""Read a file and return its lines.\n\nThe file is closed afterwards, even when reading it fails.\n"""'
    )
    (tmp_path / "module.py").write_text(f"{docstring}\nraise SystemExit\n", encoding="utf-8")
    (tmp_path / "template.py").write_text("{{ not python }}", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b'"""caf\xe9"""')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "skipped.py").write_text('"""This is never read because it is a test."""', encoding="utf-8")
    monkeypatch.setattr(room, "_topics", lambda: iter(()))
    monkeypatch.setattr(room.sysconfig, "get_path", lambda name: str(tmp_path))
    texts = dict.fromkeys(room._texts())
    assert [(item.text, item.kind) for item in texts] == [
        ("Read a file and return its lines.", "query"),
        ("The file is closed afterwards, even when reading it fails.", "document"),
    ]
