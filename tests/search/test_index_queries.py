"""What a search does for each query: its text is tokenised once, its hits are fetched at once and in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexing import Hashed, indexed, vector_of

import emb
from emb.runtime.encoder import Encoder
from emb.search.index import reader
from emb.search.index.queries import UnsearchableQuery, query_vector
from emb.search.index.ranking import Aim, best_documents
from emb.search.index.reader import Index
from emb.similarity import unit


class Counted:
    """A tokenizer that counts the texts it is given, however it is asked."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.texts = inner, list[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not name.startswith("encode"):
            return found

        def counted(given: Any, *rest: Any, **options: Any) -> Any:
            self.texts += [given] if isinstance(given, str) else given
            return found(given, *rest, **options)

        return counted


def _counted(encoder: Encoder) -> Counted:
    query_vector(encoder, "the cat")  # what stands around a query is tokenised with the first
    encoder.tokenizer.tokenizer = counted = Counted(encoder.tokenizer.tokenizer)  # type: ignore[assignment]
    return counted


@pytest.mark.parametrize("folder", ["bert_folder", "qwen3_folder"])  # the second has a prompt
def test_a_query_is_tokenised_once(folder: str, request: pytest.FixtureRequest) -> None:
    encoder = emb.load(request.getfixturevalue(folder))
    counted = _counted(encoder)
    for text in ("rain on the mat", "the cat sat"):
        counted.texts.clear()
        query_vector(encoder, text)
        assert counted.texts == [encoder.prompt("query") + text]


def test_a_prompt_makes_no_text_known(bert_folder: Path) -> None:
    encoder = emb.load(bert_folder)
    encoder.prompts = {"query": "the cat: "}
    with pytest.raises(UnsearchableQuery, match="knows no token of the query '😀'"):
        query_vector(encoder, "😀")
    for text in ("cat", "the cat"):  # known, though the prompt says the same
        assert query_vector(encoder, text).shape == (32,)


def test_an_encoder_that_does_not_tell_what_it_read_is_asked_all_the_same() -> None:
    with pytest.raises(UnsearchableQuery, match="knows no token"):
        query_vector(Hashed(), "nothing known")
    assert query_vector(Hashed(), "w1 and more").shape == (32,)
    broken = Hashed()
    broken.encode = lambda *_, **options: np.full(32, np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(UnsearchableQuery, match="not finite"):
        query_vector(broken, "w1")


def test_one_row_is_padded_as_one_of_several(bert_folder: Path) -> None:
    tokenizer = emb.load(bert_folder).tokenizer
    for row in tokenizer.encode(["the cat sat on the mat", ""]):
        for side in ("left", "right"):
            alone, beside = tokenizer.pad([row], side), tokenizer.pad([row, row], side)
            assert all(
                one.dtype == np.int64 and (one[0] == two[0]).all() for one, two in zip(alone, beside, strict=True)
            )
    ids, mask = tokenizer.pad([np.empty(0, np.int32)])
    assert (ids.tolist(), mask.tolist()) == ([[tokenizer.pad_id]], [[0]])


def test_hits_are_whole_and_in_their_order_and_fetched_at_once(tmp_path: Path) -> None:
    count = 600
    documents = {
        f"d{number:03d}": {"text": f"w{number % 50} text {number}", "title": f"title {number}", "year": number}
        for number in range(count)
    }
    indexed(tmp_path / "i", documents, metadata=("year",))
    said: list[str] = []
    with Index(tmp_path / "i") as index:
        index.search_vector(vector_of("w1"))
        index.connection.set_trace_callback(said.append)
        for k in (1, 10, count):  # more than stand in one statement
            said.clear()
            hits = index.search_vector(vector_of("w1"), k)
            assert [hit.rank for hit in hits] == list(range(1, k + 1))
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            for hit in hits:
                known = documents[hit.id]
                assert (hit.title, hit.metadata) == (known["title"], {"year": str(known["year"])})
                assert hit.passage == known["text"]
            asked = [each for each in said if each.startswith("SELECT")]
            assert len(asked) == (1 if k < count else 2)  # of which each takes 500 hits
    scores = {name: float(unit(vector_of("w1")[None])[0] @ _stored(documents[name])) for name in documents}
    assert [hit.id for hit in hits[:50]] == sorted(scores, key=lambda name: -scores[name])[:50]


def _stored(document: dict[str, Any]) -> Any:
    return unit(vector_of(f"{document['title']} {document['text']}")[None])[0]


def test_ids_are_asked_for_where_scores_are_equal_alone(tmp_path: Path) -> None:
    indexed(
        tmp_path / "i", {f"d{number}": f"w1 text {number // 2 * 2 if number > 6 else number}" for number in range(10)}
    )
    with Index(tmp_path / "i") as index, index.state() as snapshot:
        [segment] = snapshot.segments
        for query, k, names in ((vector_of("w1 text 0"), 1, 0), (vector_of("w1 text 8"), 1, 2)):
            asked: list[int] = []

            def of(keys: Any, asked: list[int] = asked) -> dict[int, str]:
                asked += keys
                return {key: str(-key) for key in keys}

            best_documents([Aim(segment, unit(query[None])[0], segment.members.live)], k, of)
            assert len(asked) == names


def test_what_is_committed_during_a_search_is_seen_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path / "i", {f"d{number}": f"w{number}" for number in range(20)})
    with Index(tmp_path / "i") as index:
        assert "new" not in [hit.id for hit in index.search_vector(vector_of("w1"))]
        looked = []

        def best(*given: Any) -> Any:
            found = best_documents(*given)
            if not looked:  # another process commits between the scores and the texts
                indexed(tmp_path / "i", {"new": "w1", "d3": "other words"}, delete=["d1"])
            looked.append(found)
            return found

        monkeypatch.setattr(reader, "best_documents", best)
        hits = index.search_vector(vector_of("w1"), 20)
        assert len(looked) == 2
        assert hits[0].id == "new"
        assert len(hits) == 20
        assert "d1" not in [hit.id for hit in hits]
        assert [hit.passage for hit in hits if hit.id == "d3"] == ["other words"]


def test_an_index_that_was_emptied_meanwhile_has_no_hits(tmp_path: Path) -> None:
    indexed(tmp_path / "i", {"a": "w1"})
    with Index(tmp_path / "i") as index:
        assert len(index.search_vector(vector_of("w1"))) == 1
        indexed(tmp_path / "i", {}, delete=["a"])
        assert index.search_vector(vector_of("w1")) == []
        indexed(tmp_path / "i", {"b": "w1"})
        assert [hit.id for hit in index.search_vector(vector_of("w1"))] == ["b"]


def test_one_of_two_equal_documents_that_is_gone_meanwhile(tmp_path: Path) -> None:
    indexed(tmp_path / "i", {"a": "w1", "b": "w1", "c": "w2"})
    with Index(tmp_path / "i") as index:
        assert [hit.id for hit in index.search_vector(vector_of("w1"))] == ["a", "b", "c"]
        indexed(tmp_path / "i", {}, delete=["a"])
        assert [hit.id for hit in index.search_vector(vector_of("w1"))] == ["b", "c"]
