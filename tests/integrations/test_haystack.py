"""Haystack's own store, retriever and pipelines, with the real package."""

from __future__ import annotations

import asyncio
import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
from frameworks import DOCUMENTS, QUESTION, example

import emb
from emb.errors import ArtifactError, DataError, UsageError

pytest.importorskip("haystack", reason="needs python3 scripts/test.py --stack integrations")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from emb.integrations.haystack import EmbDocumentEmbedder, EmbTextEmbedder

pytestmark = pytest.mark.interop


def _documents() -> list[Document]:
    return [Document(content=text, meta={"row": row}) for row, text in enumerate(DOCUMENTS)]


def _loaded(saved: str) -> Pipeline:
    trusted: dict[str, Any] = {"allowed_modules": ["emb.integrations.haystack"]}
    return Pipeline.loads(
        saved, **(trusted if "allowed_modules" in inspect.signature(Pipeline.loads).parameters else {})
    )


def test_vectors_are_our_own(model: Path) -> None:
    own, queries, documents = emb.load(model), EmbTextEmbedder(model), EmbDocumentEmbedder(model)
    assert queries.run(QUESTION) == {"embedding": own.encode_query(QUESTION).tolist()}
    assert asyncio.run(queries.run_async(QUESTION)) == queries.run(QUESTION)
    given = _documents()
    found = documents.run(given)["documents"]
    assert [each.embedding for each in found] == own.encode_document(DOCUMENTS).tolist()
    assert [(each.id, each.content, each.meta) for each in found] == [
        (each.id, each.content, each.meta) for each in given
    ]
    assert all(each.embedding is None for each in given)
    assert asyncio.run(documents.run_async(given))["documents"] == found
    assert documents.run([]) == {"documents": []}


def test_options_are_used_in_both_forms(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, cut = emb.load(bundle), EmbTextEmbedder(bundle, truncate_dim=8)
    query = own.encode_query(QUESTION, truncate_dim=8)
    for found in (cut.run(QUESTION), asyncio.run(cut.run_async(QUESTION))):
        assert found["embedding"] == pytest.approx(query, abs=1e-6)
    documents = EmbDocumentEmbedder(bundle, truncate_dim=8, batch_size=5, progress_bar=True)
    expected = own.encode_document(DOCUMENTS, truncate_dim=8)
    for run in (documents.run, lambda given: asyncio.run(documents.run_async(given))):
        capsys.readouterr()
        found = run(_documents())
        said = capsys.readouterr()
        assert said.out + said.err != ""
        for each, vector in zip(found["documents"], expected, strict=True):
            assert each.embedding == pytest.approx(vector, abs=1e-6)
    with pytest.raises(UsageError, match="batch_size 0"):
        EmbDocumentEmbedder(bundle, batch_size=0).run(_documents())


def test_chosen_metadata_stands_before_the_text(bundle: Path) -> None:
    embedder = EmbDocumentEmbedder(bundle, meta_fields_to_embed=["title", "year"], embedding_separator=" / ")
    given = [
        Document(content="the river", meta={"title": "bread", "year": 3}),
        Document(content="x", meta={"year": None}),
    ]
    found = embedder.run(given)["documents"]
    expected = emb.load(bundle).encode_document(["bread / 3 / the river", "x"])
    assert [each.embedding for each in found] == expected.tolist()


def test_a_pipeline_finds_what_the_bundle_finds_and_is_saved_by_the_place(bundle: Path, ranked: list[str]) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("embed", EmbDocumentEmbedder(bundle))
    indexing.add_component("write", DocumentWriter(store))
    indexing.connect("embed", "write")
    indexing.run({"embed": {"documents": _documents()}})
    searching = Pipeline()
    searching.add_component("query", EmbTextEmbedder(bundle))
    searching.add_component("find", InMemoryEmbeddingRetriever(store, top_k=len(DOCUMENTS)))
    searching.connect("query.embedding", "find.query_embedding")
    hits = searching.run({"query": {"text": QUESTION}})["find"]["documents"]
    assert [hit.content for hit in hits] == ranked
    saved = indexing.dumps()
    assert f"model: {bundle}" in saved
    again = _loaded(saved).get_component("embed")
    assert again.to_dict() == indexing.get_component("embed").to_dict()


@pytest.mark.parametrize("kind", [EmbTextEmbedder, EmbDocumentEmbedder])
def test_all_options_survive_saving(kind: Any, single: Path) -> None:
    options: dict[str, Any] = {
        "truncate_dim": 8,
        "file": "onnx/model.onnx",
        "device": "cpu",
        "threads": 1,
        "verify": False,
        "batch_size": 3,
        "progress_bar": True,
        "meta_fields_to_embed": ["title"],
        "embedding_separator": " ",
    }
    known = {name: options[name] for name in inspect.signature(kind.__init__).parameters if name in options}
    saved = kind(single, **known).to_dict()
    assert saved["init_parameters"] == {"model": str(single), **known}
    assert saved["type"] == f"emb.integrations.haystack.{kind.__name__}"
    assert kind.from_dict(saved).to_dict() == saved


def test_the_model_is_opened_by_warm_up_and_let_go_by_close(bundle: Path, tmp_path: Path) -> None:
    embedder = EmbTextEmbedder(tmp_path / "nowhere")  # a pipeline is put together on a machine without the model
    with pytest.raises(ArtifactError, match="no such folder"):
        embedder.warm_up()
    embedder = EmbTextEmbedder(bundle)
    embedder.warm_up()
    first = embedder._sides.open()
    assert embedder._sides.open() is first
    assert copy.deepcopy(embedder)._sides.open() is first
    embedder.close()
    assert embedder._sides.open() is not first


def test_what_has_no_text_is_refused(bundle: Path) -> None:
    embedder = EmbDocumentEmbedder(bundle)
    with pytest.raises(DataError, match="the document b1 holds no text"):
        embedder.run([Document(content="x"), Document(id="b1")])
    wrong: Any = QUESTION
    with pytest.raises(UsageError, match="a list of Documents is taken"):
        embedder.run(wrong)


def test_the_page_is_right(bundle: Path, ranked: list[str]) -> None:
    assert [hit.content for hit in example("Haystack", bundle)] == ranked[:3]
