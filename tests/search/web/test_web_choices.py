"""Which encoder, which similarity, which dims and prompts a page takes; nothing is encoded for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import SENTENCES
from web_pages import static_encoder, wordpiece

import emb
from emb.data.documents import Document
from emb.errors import ArtifactError, UsageError
from emb.search.web import build, layered_side, write
from emb.search.web.side import TABLE, QuerySide
from emb.search.web.static_side import require_same_vectors, static_side
from emb.search.web.table import Table, read_rows
from emb.search.web.tokenizer import page_tokenizer
from emb.search.web.write import Look
from emb.similarity import Vectors
from emb.tokens import TextTokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return static_encoder(tmp_path_factory.mktemp("static") / "encoder")


def test_the_documents_encoder_that_is_named_comes_before_a_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "is_bundle", lambda path: path.name == "both")
    assert build._doc(Path("both"), None) == Path("both")
    assert build._doc(Path("both"), Path("large")) == build._doc(Path("small"), Path("large")) == Path("large")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_a_page_compares_by_cosine_or_dot(similarity: str) -> None:
    encoder: Any = SimpleNamespace(similarity_fn_name=similarity, dim=8)
    if similarity in ("cosine", "dot"):
        build._require_known(encoder, "int8", Look("", 0))
    else:
        with pytest.raises(ArtifactError, match=f"compared by {similarity}"):
            build._require_known(encoder, "int8", Look("", 0))
    with pytest.raises(UsageError, match="snippet -1 is no length"):
        build._require_known(encoder, "int8", Look("", -1))


@pytest.mark.parametrize("dim", [0, -1, 9])
def test_dims_that_a_query_encoder_does_not_have(dim: int) -> None:
    encoder: Any = SimpleNamespace(dim=8)
    assert (build._width(encoder, None), build._width(encoder, 1), build._width(encoder, 8)) == (8, 1, 8)
    with pytest.raises(UsageError, match=f"{dim} dims cannot be kept"):
        build._width(encoder, dim)


@pytest.mark.parametrize(
    ("normalize", "similarity", "expected"), [(False, "cosine", True), (False, "dot", False), (True, "dot", True)]
)
def test_vectors_get_length_1_where_they_have_it_or_are_compared_by_direction(
    encoder: Path, normalize: bool, similarity: str, expected: bool
) -> None:
    opened = emb.load(encoder)
    opened.normalize, opened.similarity_fn_name = normalize, similarity
    assert static_side(opened, encoder, 16, SENTENCES).normalize is expected


def test_a_page_is_tried_behind_the_prompt_of_queries(encoder: Path) -> None:
    opened = emb.load(encoder)
    opened.prompts = {"query": "yes ", "document": "stars "}
    assert require_same_vectors(opened, Table.of(read_rows(encoder)), SENTENCES) > 0.999
    tried = layered_side._tried(opened, SENTENCES[:2], 8)
    cut = np.asarray(opened.encode(SENTENCES[:2], kind="query"))[:, :8]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose([vector for _, vector in tried], expected, atol=1e-4)


def test_rows_that_are_a_little_off_are_noticed(encoder: Path) -> None:
    opened, rows = emb.load(encoder), read_rows(encoder)
    noise = np.random.default_rng(1).standard_normal(rows.shape) * np.linalg.norm(rows, axis=1, keepdims=True)
    with pytest.raises(ArtifactError, match="not the query encoder's"):
        require_same_vectors(opened, Table.of((rows + 0.05 * noise).astype(np.float32)), SENTENCES)


@pytest.mark.parametrize("normalize", [True, False])
def test_documents_are_cut_as_queries_are(normalize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        """The vectors that would be stored."""

    def stored(vectors: Vectors, codec: str) -> None:
        raise Seen(vectors)

    monkeypatch.setattr(write, "stored", stored)
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    side = QuerySide(TABLE, {}, {}, 4, normalize, 1.0)
    documents = [Document("", text) for text in "abc"]
    with pytest.raises(Seen) as caught:
        write.write_page(tmp_path / "web", side, documents, vectors, codec="int8", look=Look("", 0))
    lengths = np.linalg.norm(caught.value.args[0], axis=1)
    assert caught.value.args[0].shape == (3, 4)
    np.testing.assert_allclose(lengths, np.ones(3) if normalize else np.linalg.norm(vectors[:, :4], axis=1), rtol=1e-5)


def test_tokenizers_that_lower_beforehand_or_do_not_know_their_own_unknown() -> None:
    with pytest.raises(ArtifactError, match="do_lower_case is set"):
        page_tokenizer(TextTokenizer(wordpiece(), max_length=64, pad_id=0, lowercase=True), "")
    tokenizer = wordpiece()
    tokenizer.model.unk_token = "[nowhere]"
    with pytest.raises(ArtifactError, match=r"vocabulary has no \[nowhere\]"):
        page_tokenizer(TextTokenizer(tokenizer, max_length=64, pad_id=0), "")


def test_the_same_content_is_packed_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    for now in (1.0e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        packed.append(write._gzip(b"the same"))
    assert packed[0] == packed[1]
