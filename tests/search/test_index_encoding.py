"""How an index's documents are encoded: as documents, within what the encoder reads, and what goes wrong by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from indexing import Hashed, indexed, texts

from emb.errors import UsageError
from emb.search.index import build
from emb.similarity import NotFiniteError
from emb.tokens import Cut


class Limited(Hashed):
    """Cuts every second text of a call, makes nothing of a text that holds w3, and remembers kinds."""

    def __init__(self, prompt: str = "") -> None:
        super().__init__()
        self.prompts, self.kinds = {"document": prompt}, set[Any]()

    def encode(self, texts: Any, *, count: Callable[[Cut], None] | None = None, **options: Any) -> Any:
        """See `Encoder`."""
        self.kinds.add(options.get("kind"))
        found = super().encode(texts, **options)
        if broken := [row for row, text in enumerate(texts) if "w3" in text]:
            raise NotFiniteError(broken[0], texts[broken[0]])
        if count:
            count(Cut(len(texts), len(texts) // 2, 5, self.max_length))
        return found


def test_documents_are_encoded_as_documents(tmp_path: Path) -> None:
    indexed(tmp_path / "i", {"a": "w1"}, encoder := Limited())
    assert encoder.kinds == {"document"}


def test_a_vector_that_is_not_finite_names_its_document(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"i\.jsonl:4: text 1 gets NaN or infinity: 'w3 text 3'"):
        indexed(tmp_path / "i", texts(6), Limited())


def test_what_is_cut_off_is_told_of_all_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "BLOCK", 4)
    documents = {name: text.replace("w3", "w4") for name, text in texts(8).items()}
    assert indexed(tmp_path / "i", documents, Limited()).truncated == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "4 of 8 (50%) are longer than the 16 tokens" in said
    assert "--chunk-tokens N cuts documents in pieces" in said


def test_a_prompt_takes_room_from_pieces(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose at most 14"):
        indexed(tmp_path / "i", texts(2), Limited("w1 w2 "), chunk_tokens=15)
    assert indexed(tmp_path / "i", texts(2), Limited("w1 w2 "), chunk_tokens=14).documents == 2
