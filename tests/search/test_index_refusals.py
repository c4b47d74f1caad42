"""What does not belong to an index is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import DIM, Hashed, indexed, ranking, record, texts, vector_of

import emb
from emb.artifact.fingerprints import weights_hash
from emb.artifact.lineage import TeacherRecord
from emb.artifact.manifest import Manifest
from emb.errors import ArtifactError, EmbError, UsageError
from emb.search.index.catalogue import FILE as SQLITE
from emb.search.index.chunks import Chunker
from emb.search.index.description import FILE, Layout
from emb.search.index.matching import fitting_encoder, require_fitting, require_same_space
from emb.search.index.queries import UnsearchableQuery, query_vector
from emb.search.index.reader import Index
from emb.search.index.run import Choices, index_with


@pytest.mark.parametrize(
    ("encoder", "layout", "said"),
    [
        (("dot", False), {"codec": "binary"}, "keeps directions alone"),
        (("euclidean", False), {"codec": "binary", "rescore": "int8"}, "keeps directions alone"),
        (("manhattan", False), {"codec": "int8"}, "manhattan distance"),
        (("manhattan", False), {"rotate": True}, "manhattan distance"),
        (("cosine", True), {"dim": 33}, "dim 33: the encoder has 32"),
        (("cosine", True), {"codec": "int9"}, "codec 'int9' does not find candidates"),
        (("cosine", True), {"codec": "int8", "rescore": "int8"}, "no finer than int8"),
        (("cosine", True), {"codec": "int8", "rescore": "binary"}, "rescore binary: no finer codec"),
        (("cosine", True), {"codec": "lvq8"}, "codec 'lvq8' does not find candidates"),
        (("cosine", True), {"overlap": 2}, "documents are not cut"),
        (("cosine", True), {"chunk_tokens": 17}, "the encoder reads 16"),
        (("cosine", True), {"chunk_tokens": 4, "overlap": 4}, "a piece has 4 tokens"),
        (("cosine", True), {"factory": "IVFx"}, "faiss does not know it"),
        (("cosine", True), {"factory": "IVF5000,Flat"}, "faiss cannot build it"),
        (("cosine", True), {"rotate": True}, "too few to find 32 directions in"),
    ],
)
def test_layouts_that_cannot_be(encoder: tuple[str, bool], layout: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(EmbError, match=re.escape(said)):
        indexed(tmp_path / "i", texts(2), Hashed(*encoder), **layout)


def test_a_factory_of_no_meaning_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    encoder = Hashed()
    with pytest.raises(UsageError, match="faiss does not know it"):
        indexed(tmp_path / "i", texts(2), encoder, factory="IVFx")
    assert encoder.encoded == 0
    assert indexed(tmp_path / "i", texts(2), encoder).documents == 2  # nothing of it binds


def test_a_layout_stays(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3), codec="float16", dim=16)
    indexed(tmp_path / "i", texts(4), codec="float16")
    indexed(tmp_path / "whole", texts(3))
    indexed(tmp_path / "whole", texts(4), dim=DIM)  # as a bundle names its dims
    for layout in ({"codec": "int8"}, {"dim": 8}, {"rotate": True}, {"chunk_tokens": 4}):
        with pytest.raises(UsageError, match="the index was begun with"):
            indexed(tmp_path / "i", texts(4), **layout)


def test_documents_by_another_encoder(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    choices = Choices([str(tmp_path / "i.jsonl")])
    with pytest.raises(ArtifactError, match="were encoded by model, this is another model"):
        index_with(tmp_path / "i", choices, Hashed(), record(Hashed(), "other"))


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ArtifactError, match="no index here"):
        Index(tmp_path)
    with pytest.raises(ArtifactError, match="holds something that is no index"):
        indexed(tmp_path / "full", texts(3))
    with pytest.raises(ArtifactError, match="no index here"):
        indexed(tmp_path / "none", {}, delete=["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "full.jsonl"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]  # no lock either: it may be signed


def test_another_version_and_a_damaged_database(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    path = tmp_path / "i" / FILE
    value = json.loads(path.read_text(encoding="utf-8"))
    assert {"schema", "dim", "length_one", "measure", "encoder", "layout"} <= set(value)
    path.write_text(json.dumps(value | {"schema": 2}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="an index of version 2, this program reads version 1"):
        Index(tmp_path / "i")
    path.write_text(json.dumps(value | {"encoder": value["encoder"] | {"similarity": "euclidean"}}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"index.json: changed since it was written"):
        Index(tmp_path / "i")
    del value["digest"]  # as an older one
    path.write_text(json.dumps(value), encoding="utf-8")
    assert len(ranking(tmp_path / "i")) == 3
    (tmp_path / "i" / SQLITE).write_bytes(b"no database at all" * 100)
    with pytest.raises(ArtifactError, match="damaged"):
        Index(tmp_path / "i").search_vector(vector_of("w1"))


def test_queries_of_another_dim() -> None:
    documents = record(Hashed())
    require_fitting(Hashed(dim=16), documents, Layout(dim=16))
    require_fitting(Hashed(dim=24), documents, Layout(dim=16))
    for dim, layout in ((16, Layout()), (8, Layout(dim=16)), (48, Layout()), (16, Layout(dim=16, rotate=True))):
        with pytest.raises(ArtifactError, match=f"the query encoder has {dim} dims, the documents' encoder {DIM}"):
            require_fitting(Hashed(dim=dim), documents, layout)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [(Hashed("cosine", False), "of any length, the documents' of length 1"), (Hashed("dot", True), "compares by dot")],
)
def test_queries_of_another_form(encoder: Hashed, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtifactError, match=said):
        require_same_space(encoder, None, record(Hashed()))
    require_same_space(encoder, None, record(Hashed()), any_encoder=True)
    assert said.split(",")[0] in " ".join(capsys.readouterr().err.split())


def test_queries_of_another_teacher(
    bert_folder: Path, student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = replace(record(Hashed()), origins=[weights_hash(bert_folder)])
    require_same_space(Hashed(), bert_folder, documents)
    with pytest.raises(ArtifactError, match="not known to be made from it"):
        require_same_space(Hashed(), student_folder, documents)
    require_same_space(Hashed(), student_folder, documents, any_encoder=True)
    assert "not known to be made from it" in " ".join(capsys.readouterr().err.split())
    student = Path(shutil.copytree(student_folder, tmp_path / "student"))
    _name_teacher(student, weights_hash(bert_folder))
    require_same_space(Hashed(), student, documents)
    _name_teacher(student, "another")
    with pytest.raises(ArtifactError, match="made from another model than model"):
        require_same_space(Hashed(), student, documents)


def test_a_loaded_encoder_is_held_against_the_documents_too(
    bert_folder: Path, student_folder: Path, tmp_path: Path
) -> None:
    encoder = emb.load(student_folder, backend="torch")
    documents = record(encoder, weights_hash(student_folder))
    assert fitting_encoder(encoder, documents, Layout(), any_encoder=False) is encoder
    with pytest.raises(ArtifactError, match="not known to be made from it"):
        fitting_encoder(encoder, replace(documents, origins=[weights_hash(bert_folder)]), Layout(), any_encoder=False)


def _name_teacher(student: Path, weights: str) -> None:
    manifest = Manifest.load(student)
    manifest.lineage.teacher = TeacherRecord("teacher", weights=weights)
    manifest.write(student)


def test_queries_that_mean_nothing(tmp_path: Path, bert_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = emb.load(bert_folder)
    for text in ("", " \n\t", "\0"):
        with pytest.raises(UnsearchableQuery, match="the query is empty"):
            query_vector(encoder, text)
    with pytest.raises(UnsearchableQuery, match="knows no token of the query '😀😀'"):
        query_vector(encoder, "😀😀")
    assert query_vector(encoder, "rain 😀").shape == (32,)
    assert query_vector(encoder, "rain \ud800").shape == (32,)
    assert not capsys.readouterr().err
    query_vector(encoder, "cat " * 100)
    assert "longer than the 64 tokens" in " ".join(capsys.readouterr().err.split())
    huge = query_vector(encoder, "the cat sat on the mat " * (10 * 1024 * 1024 // 23))
    assert "4,096 of them are looked at" in " ".join(capsys.readouterr().err.split())
    assert abs(huge - query_vector(encoder, "the cat sat on the mat " * 100)).max() < 1e-6


def test_searches_that_cannot_be(tmp_path: Path) -> None:
    indexed(tmp_path / "i", texts(3))
    with Index(tmp_path / "i") as index:
        with pytest.raises(UsageError, match="opened without a query encoder"):
            index.search("text")
        with pytest.raises(UsageError, match="k 0"):
            index.search_vector(vector_of("w1"), 0)
        for dim in (16, 33):
            with pytest.raises(UsageError, match=rf"a query of shape \({dim},\), the index has 32 dims"):
                index.search_vector(vector_of("w1", dim))
        for number in (np.nan, np.inf):
            with pytest.raises(UsageError, match="the query's vector holds NaN or infinity"):
                index.search_vector(np.full(DIM, number))
        with pytest.raises(UsageError, match="where year: not in this index"):
            index.search_vector(vector_of("w1"), where={"year": "1999"})


@pytest.mark.parametrize("record", [{"id": None}, {"id": True}, {"id": " "}, {"id": 1.5}, {}])
def test_documents_without_a_usable_id(record: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text(json.dumps({"text": "w1"} | record) + "\n", encoding="utf-8")
    with pytest.raises(EmbError, match=r"docs.jsonl:1: no id in 'id'"):
        _read(source)


def _read(source: Path) -> None:
    from emb.search.index.documents import Columns, read_entries

    list(read_entries([str(source)], Columns(id="id")))


def test_pieces_that_the_prompt_leaves_no_room_for(bert_folder: Path) -> None:
    tokenizer = emb.load(bert_folder).tokenizer
    Chunker(tokenizer, 62, 0, "")
    with pytest.raises(UsageError, match="choose at most 61"):
        Chunker(tokenizer, 62, 0, "rain")
