"""Documents read from every kind of source, and cut in pieces that lose nothing."""

from __future__ import annotations

import gzip
import json
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indexing import Hashed, indexed, ranking, record, texts
from retrieval_set import write_set
from tiny import SENTENCES
from tokenizers import Tokenizer, models, pre_tokenizers

import emb
from emb.cli import cli
from emb.commands import console
from emb.errors import DataError, EmbError
from emb.search.index import storing
from emb.search.index.chunks import Chunker
from emb.search.index.documents import Columns, content_of, read_entries, survey
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with
from emb.tokens import TextTokenizer


def test_a_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    entries = list(read_entries([str(write_set(tmp_path / "set", SENTENCES))], Columns()))
    assert [entry.id for entry in entries] == [f"d{number}" for number in range(len(SENTENCES))]
    assert (entries[0].title, entries[0].text, entries[1].title) == ("A title", SENTENCES[0], "")


def test_columns_of_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"key": 7, "name": " A  title ", "body": "text", "year": 1999, "tags": ["a"]}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.csv.gz", "wt", encoding="utf-8") as handle:
        handle.write('key,name,body,year,tags\n8,A title,text,1999,"[""a""]"\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([rows[0] | {"key": 9}]), tmp_path / "c.parquet")
    columns = Columns("body", "name", "key", ("year", "tags"))
    entries = list(read_entries([str(tmp_path)], columns))
    assert [entry.id for entry in entries] == ["7", "8", "9"]
    assert {(entry.title, entry.text, entry.facts_json) for entry in entries} == {
        ("A title", "text", json.dumps({"tags": '["a"]', "year": "1999"}))
    }
    assert survey(entries) == 3


def test_which_id_counts_and_who_is_a_document(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"_id": "a", "id": "b", "text": "text"},
        {"_id": " c ", "text": "", "title": "a title alone"},
        {"_id": "d", "text": " ", "title": " "},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entries = list(read_entries([str(tmp_path / "a.jsonl")], Columns()))
    assert [(entry.id, entry.title, entry.text) for entry in entries] == [("a", "", "text"), ("c", "a title alone", "")]


def test_a_word_that_moves_from_title_to_text_is_a_change() -> None:
    assert content_of("a b", "c") != content_of("a", "b c")


def test_metadata_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "lang": "en"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a.jsonl:1: no field 'year'"):
        list(read_entries([str(tmp_path / "a.jsonl")], Columns(metadata=("year",))))


def test_values_that_json_does_not_have_are_kept_as_they_are_written(tmp_path: Path) -> None:
    values = {"day": date(2024, 1, 2), "price": Decimal("1.50"), "year": 2024, "seen": None, "tags": ["a"], "name": "é"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"id": 1, "text": "a"} | values]), tmp_path / "a.parquet")
    [entry] = read_entries([str(tmp_path / "a.parquet")], Columns(metadata=tuple(values)))
    kept = {"day": "2024-01-02", "price": "1.50", "year": "2024", "seen": "null", "tags": '["a"]', "name": "é"}
    assert entry.facts == kept


def test_documents_that_are_left_out_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(tmp_path / "i", {"a": "w1", "b": "w2", "c": "w3"})
    assert "neither title nor text" not in capsys.readouterr().err
    done = indexed(tmp_path / "i", {"a": {"text": ""}, "b": {"text": None}, "c": "w3"})
    assert (done.documents, done.unchanged) == (3, 1)
    said = " ".join(capsys.readouterr().err.split())
    assert "i.jsonl:1: neither title nor text; documents with an id that are left out for that: 2." in said


def test_nothing_is_encoded_where_a_document_is_wrong(tmp_path: Path) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(SENTENCES)] + [{"id": 3, "text": "again"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"the id '3' stands twice: .*a.jsonl:4 and .*a.jsonl:21"):
        index_with(tmp_path / "i", Choices([str(tmp_path / "a.jsonl")]), encoder := Hashed(), record(encoder))
    assert not encoder.encoded
    with pytest.raises(EmbError, match="the encoder reads 16"):
        indexed(tmp_path / "i", texts(3), encoder, chunk_tokens=17)
    indexed(tmp_path / "i", texts(3), encoder, codec="int8")  # what was chosen without success does not bind
    assert encoder.encoded == 3


@given(
    words=st.lists(st.sampled_from(["rain", "the", "İstanbul", "cat,", "😀", "unheard", "\n"]), max_size=40),
    tokens=st.integers(1, 12),
    overlap=st.integers(0, 11),
)
def test_pieces_cover_a_text_and_are_as_long_as_asked(words: list[str], tokens: int, overlap: int) -> None:
    overlap = min(overlap, tokens - 1)
    text = " ".join(words).strip()
    pieces = ["[UNK]", "rain", "the", "cat", ",", "un", "##heard", "##s", "##tan", "##bul", "i"]
    inner = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = TextTokenizer(inner, max_length=64, pad_id=0, lowercase=True)
    chunker = Chunker(tokenizer, tokens, overlap, "")
    [spans] = chunker.spans([text])
    whole = chunker.tokenizer.encode(text, add_special_tokens=False).offsets
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    for (start, stop), (following, _) in pairwise(spans):
        assert start < following <= stop
    for start, stop in spans:
        assert len([1 for begin, _ in whole if start <= begin < stop]) <= max(tokens, 1)
    for (_, stop), (following, _) in list(pairwise(spans))[:-1]:
        assert len([1 for begin, _ in whole if following <= begin < stop]) == overlap


def test_pieces_reach_beyond_what_the_encoder_reads(bert_folder: Path) -> None:
    tokenizer, text = emb.load(bert_folder).tokenizer, "the cat sat on the mat " * 20
    [spans] = Chunker(tokenizer, 10, 2, "").spans([text])
    assert len(spans) == 15
    assert {len(tokenizer.tokenizer.encode(text[slice(*span)], add_special_tokens=False).ids) for span in spans} == {10}


def test_what_is_fitted_does_not_depend_on_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "SAMPLE", 50)
    documents = texts(200)
    indexed(tmp_path / "a", documents, codec="int8", rotate=True)
    indexed(tmp_path / "b", dict(reversed(documents.items())), Hashed(), codec="int8", rotate=True)
    found = []
    for name in "ab":
        with Index(tmp_path / name) as index:
            fitted = index.snapshot().fitted
            assert fitted is not None
            found.append(fitted.codec.fingerprint)
    assert found[0] == found[1]


def test_ids_to_remove_stand_one_a_line_or_as_json(tmp_path: Path) -> None:
    from emb.search.index.documents import read_ids

    for name, content in {"a.txt": "d1\n\n  d2 \n", "a.jsonl": '"d1"\n\n" d2"\n"two\\nlines"\n7\n'}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_ids(tmp_path / "a.txt") == ["d1", "d2"]
    assert read_ids(tmp_path / "a.jsonl") == ["d1", "d2", "two\nlines", "7"]
    for wrong in ("d1", '{"id": "d1"}', "true", "1.5", "null"):
        (tmp_path / "b.jsonl").write_text(f'"d0"\n{wrong}\n', encoding="utf-8")
        with pytest.raises(DataError, match=r"b.jsonl:2: no id as JSON"):
            read_ids(tmp_path / "b.jsonl")


def test_a_document_whose_id_holds_a_line_break_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(tmp_path / "i", {"two\nlines": "w1", "other": "w2"})
    (tmp_path / "ids.jsonl").write_text('"two\\nlines"\n', encoding="utf-8")
    assert console.run(cli, ["index", "--out", str(tmp_path / "i"), "--delete", str(tmp_path / "ids.jsonl")]) == 0
    assert "1 deleted" in capsys.readouterr().out
    assert [name for name, _ in ranking(tmp_path / "i")] == ["other"]
